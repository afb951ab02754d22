"""The training step asks nothing of the device that it would have to wait for."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from slam.data.latents import Latents
from slam.models.diffusion import load
from slam.training.batches import global_draw, local_batches
from slam.training.objective import make_objective
from slam.training.plan import make_plan
from slam.training.state import first_state
from slam.training.step import train_step


class Asked(TorchDispatchMode):
    """The operations that bring a number to Python, or a shape that depends on values: on a GPU each one waits."""

    WAIT = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2")

    def __init__(self):
        super().__init__()
        self.count, self.waits = 0, []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.count += 1
        if function.name().split(".")[0] in self.WAIT:
            self.waits.append(function.name())
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize("changes", [{}, {"train.precision": "fp16", "train.emas": [0.9, 0.99]}], ids=["fp32", "fp16"])
def test_no_step_waits_for_the_device(changes, profile, latents):
    plan = make_plan(profile(**{"train.micro_batch": 4, **changes}), latents)
    accelerator, model = Accelerator(cpu=True), load(plan.teacher)
    objective, network = make_objective(plan, model)
    target = copy.deepcopy(network).requires_grad_(False)
    state = first_state(plan.train, network.unet, target.unet)
    data = Latents(latents, "train")
    steps = [local_batches(plan, data, global_draw(plan, model.latent_shape, 1000, i), i, 0, 1) for i in range(2)]
    train_step(objective, accelerator, network, target, state, steps[0])  # the optimizer makes its moments in the first
    with Asked() as asked:
        train_step(objective, accelerator, network, target, state, steps[1])
    assert asked.count > 1000 and asked.waits == []
    with Asked() as asked:
        float(torch.ones(()) + 1)
    assert asked.waits  # one would have been seen
