"""What a step costs by count, from the code itself, on tensors that have a shape and no numbers."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from slam.bench.parts import REST, Watch, watched
from slam.bench.subject import Subject
from slam.config_speed import Speed
from slam.models.architecture import empty_like
from slam.models.diffusion import LatentDiffusion
from slam.models.fast import frozen_type
from slam.models.precision import PRECISIONS
from slam.training.batches import global_draw
from slam.training.contexts import fit
from slam.training.objective import make_objective
from slam.training.plan import Plan
from slam.training.step import Batch, Objective, losses

GIB = 2**30


def flops(subject: Subject, model: LatentDiffusion) -> dict[str, int]:
    """Floating point operations of each network in one step of the plan's global batch: 2 for a multiply and add.

    `FlopCounterMode` counts them in the loss and its backward pass on the device "meta".
    """
    with FlopCounterMode(display=False) as counter:
        watch = Watch(counter.get_total_flops, lambda start, end: end - start)
        objective, student, target, batch = _ready(_plain(subject.plan), empty_like(model), "meta")
        optimizer = torch.optim.SGD(student.parameters())
        objective, student, target, _ = watched(watch)(objective, student, target, optimizer)
        watch.begin(REST)
        if fit(subject.samples, objective.null, subject.plan.train.speed.text_cache):
            batch = batch._replace(text=objective.null.expand(len(batch.latents), -1, -1))
        loss = losses(objective, student, target, batch)
        watch.begin("backward")
        loss.sum().backward()
        watch.begin(REST)
    return {part: int(count) for part, count in watch.totals().items() if count}


def _plain(plan: Plan, **changes: object) -> Plan:
    """`plan` in float32 and with no switch: the device "meta" has no autocast, and a count does not depend on it."""
    changes = {"precision": "fp32", "speed": Speed(onednn=False), **changes}
    return plan._replace(train=plan.train.model_copy(update=changes))


def _ready(plan: Plan, model: LatentDiffusion, device: str) -> tuple[Objective, nn.Module, nn.Module, Batch]:
    objective, student = make_objective(plan, model)
    target = copy.deepcopy(student).requires_grad_(False).eval()
    draw = global_draw(plan, model.latent_shape, objective.schedule.T, 0).to(device)
    ids = torch.zeros(plan.train.batch, objective.null.shape[1], dtype=torch.int64, device=device)
    return objective, student, target, Batch(torch.empty_like(draw.noise), ids, draw)


def weights(plan: Plan, model: LatentDiffusion) -> dict[str, int]:
    """Bytes of what a training holds from step to step, in one process."""
    unet, text = (sum(value.numel() for value in part.parameters()) for part in (model.unet, model.text_encoder))
    frozen = torch.empty((), dtype=frozen_type(plan.train.speed, plan.train.precision)).element_size()
    return {
        "student, fp32": 4 * unet,
        "gradients, fp32": 4 * unet,
        "Adam's moments, fp32": 8 * unet,
        "target (EMA), fp32": 4 * unet * (1 + len(plan.train.emas)),
        "target, as computed": 0 if frozen == 4 else frozen * unet,
        "teacher": frozen * unet,
        "text encoder, fp32": 4 * text,
    }


def activations(subject: Subject, model: LatentDiffusion, micro_batch: int, checkpointing: bool) -> int:
    """Bytes that the student's forward pass keeps for its backward pass, by the hooks that autograd offers.

    On fake tensors: of a GPU where the precision is a low one, so that autocast's own list of layers holds. The casts
    of the weights, which autocast keeps until the step ends, are among the bytes.
    """
    precision = subject.plan.train.precision
    device = "cpu" if precision == "fp32" else "cuda"
    with FakeTensorMode(allow_non_fake_inputs=True), saved() as sizes:
        with torch.device(device):
            unet = type(model.unet).from_config(model.unet.config)
            length = model.text_encoder.config.max_position_embeddings
            z, t = torch.empty(micro_batch, *model.latent_shape), torch.zeros(micro_batch, dtype=torch.int64)
            c = torch.empty(micro_batch, length, unet.config.cross_attention_dim)
        if checkpointing:
            unet.train().enable_gradient_checkpointing()
        with contextlib.nullcontext() if precision == "fp32" else low_precision(PRECISIONS[precision]):
            out = unet(z, t, encoder_hidden_states=c).sample
        own = {value.untyped_storage()._cdata for value in unet.parameters()}
        kept = sum(size for key, size in sizes.items() if key not in own)
        del out
    return kept


@contextlib.contextmanager
def low_precision(dtype: torch.dtype) -> Iterator[None]:
    """Autocast and flash attention of CUDA, on fake tensors, where `torch.autocast` and the choice of an attention
    would ask for a real device."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    torch.autocast_increment_nesting()
    try:
        with FlashAttention(dtype):
            yield
    finally:
        torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)


class FlashAttention(TorchFunctionMode):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is nn.functional.scaled_dot_product_attention:
            q, k, v = (value.to(self.dtype) for value in args[:3])
            return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def saved() -> Iterator[dict[int, int]]:
    """Yields the bytes of each storage that autograd saves inside the block."""
    sizes: dict[int, int] = {}
    alive = []  # a storage's address may be given again once it is gone

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        alive.append(storage)
        sizes[storage._cdata] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield sizes
