"""The switches of `train.speed` that are about one network, applied to a diffusers U-Net."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from slam.config_speed import Speed
from slam.models.attention import FewTokens
from slam.models.fp8 import use_fp8
from slam.models.group_norm import use_float32_norms
from slam.models.onednn import use_onednn
from slam.models.precision import PRECISIONS

LAYOUTS = {True: torch.channels_last, False: torch.contiguous_format}
ATTENTIONS = {"fused": FewTokens, "math": AttnProcessor}


def quicken(unet: UNet2DConditionModel, speed: Speed) -> UNet2DConditionModel:
    """`unet` itself, changed in place, to be trained or not; its parameters keep their names."""
    if speed.onednn:
        use_onednn(unet)
    unet.set_attn_processor(ATTENTIONS[speed.attention]())
    unet.to(memory_format=LAYOUTS[speed.channels_last])
    use_float32_norms(unet)
    if speed.compile:
        compile_alone(unet)
    return unet


def compile_alone(unet: nn.Module) -> None:
    """`unet.compile()` without a look at each of its modules in each call, which took 3% of a tiny step: nothing
    changes them from here on. Those looks also tell networks apart that share compiled code, which torch keeps by the
    function's code object: so each has one of its own, and all of it in one graph.

    Compiling happens in the first call: what is to be changed (`enable_gradient_checkpointing`) is changed before that.
    """
    whole = unet._call_impl  # which `nn.Module.compile` compiles, into `_compiled_call_impl`

    def call(*args: object, **kwargs: object) -> object:
        return whole(*args, **kwargs)

    call.__code__ = call.__code__.replace()  # a copy; functions of one `def` share their code
    unchecked = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    unet._compiled_call_impl = torch.compile(call, dynamic=False, fullgraph=True, options=unchecked)


def frozen_type(speed: Speed, precision: str) -> torch.dtype:
    """Of the weights of teacher and target."""
    return PRECISIONS[precision] if speed.frozen == "precision" else torch.bfloat16


def quick_teacher(unet: UNet2DConditionModel, speed: Speed, precision: str) -> nn.Module:
    """The teacher's U-Net, in place, called as diffusers calls it."""
    nn.Module.to(unet, frozen_type(speed, precision))  # diffusers' own `to` warns about layers that it does not have
    if speed.frozen == "fp8":
        use_fp8(unet)
    network = typed(quicken(unet, speed))
    return network if speed.one_batch else TwoPasses(network)


def typed(unet: UNet2DConditionModel) -> nn.Module:
    return unet if unet.dtype == torch.float32 else Typed(unet)


class Typed(nn.Module):
    """A U-Net that computes in the type of its weights, whatever autocast says around it; float32 in, float32 out."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet, self.dtype = unet, unet.dtype

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, timestep_cond: Tensor | None = None
    ) -> UNet2DConditionOutput:
        told = None if timestep_cond is None else timestep_cond.to(self.dtype)
        with torch.autocast(sample.device.type, enabled=False):
            out = self.unet(
                sample.to(self.dtype),
                timestep,
                encoder_hidden_states=encoder_hidden_states.to(self.dtype),
                timestep_cond=told,
            )
        return UNet2DConditionOutput(sample=out.sample.float())


class TwoPasses(nn.Module):
    """A U-Net whose batch is the conditional and the unconditional half, one after the other."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, timestep_cond: None = None):
        halves = zip(sample.chunk(2), timestep.chunk(2), encoder_hidden_states.chunk(2), strict=True)
        out = [self.unet(z, t, encoder_hidden_states=c).sample for z, t, c in halves]
        return UNet2DConditionOutput(sample=torch.cat(out))
