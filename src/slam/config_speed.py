"""`train.speed` of params.yaml: how a training step is computed, never what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from slam.frozen import Frozen


class Speed(Frozen):
    """Each key leaves the numbers as they are but for rounding; `slam bench` prints what each one gives.

    The defaults are right on every machine. What does not suit the one at hand (oneDNN on a GPU) does nothing.
    """

    one_batch: bool = True  # the teacher's conditional and unconditional pass, in one batch
    channels_last: bool = True  # weights and activations of the convolutions
    # fused: scaled_dot_product_attention, but for few tokens on a CPU; math: matmul, softmax, matmul
    attention: Literal["fused", "math"] = "fused"
    fused: bool = True  # AdamW in one kernel; clipping and averaging over lists of tensors
    onednn: bool = True  # CPU, fp32: linear layers by oneDNN, where PyTorch takes MKL, which is slow on AMD's cores
    keep_memory: bool = True  # CPU, Linux: memory that is freed stays with the process for the next step
    # MiB: where the contexts of all captions take no more, they are made before the first step, not in each. 0: never
    text_cache: int = Field(256, ge=0)
    # Teacher and target, which need no gradient. precision: weights in train.precision, which autocast would otherwise
    # make anew in each pass. fp8: the teacher's linear layers besides (on a GPU from compute capability 8.9 on;
    # elsewhere the same rounding is computed the slow way, to see its effect). bf16 and fp8 make another run.
    frozen: Literal["precision", "bf16", "fp8"] = "precision"
    # The networks by torch.compile: needs a C++ compiler, and minutes at the first start (.slam/compiled keeps them)
    compile: bool = False
    graphs: bool = False  # CUDA: the whole step as one graph

    @model_validator(mode="after")
    def _graphs_cannot_wait(self):
        if self.graphs and not self.fused:
            raise ValueError(
                "train.speed.graphs = true needs train.speed.fused = true: without it a step waits for the device"
            )
        return self


COARSE = {"frozen"}  # rounds more coarsely than float32 does: where it is not the default, it makes another run
