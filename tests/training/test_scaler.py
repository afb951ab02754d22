"""The loss scale of fp16, against PyTorch's own."""

import pytest
import torch

from slam.training.scaler import CEILING, FLOOR, PATIENCE, first_scale, unscale, update


def test_the_scale_follows_the_law_of_pytorchs_scaler():
    """The same overflows, some in a row, some after the scale has doubled."""
    overflows = {5, 6, 7, PATIENCE + 30, 3 * PATIENCE + 100}
    scale, tracker = torch.full((1,), 2.0**16), torch.zeros(1, dtype=torch.int32)
    mine = first_scale("cpu")
    for step in range(3 * PATIENCE + 200):
        skipped = torch.tensor(float(step in overflows))
        torch._amp_update_scale_(scale, tracker, skipped, 2.0, 0.5, PATIENCE)
        update(mine, skipped)
        if step % 500 == 0 or step in overflows:
            assert (mine.scale.item(), mine.clean.item()) == (scale.item(), tracker.item()), step


def test_the_scale_stays_between_its_bounds():
    mine = first_scale("cpu")
    for _ in range(30):
        update(mine, torch.tensor(1.0))
    assert mine.scale == FLOOR
    mine.scale.fill_(CEILING)
    mine.clean.fill_(PATIENCE - 1)
    update(mine, torch.tensor(0.0))
    assert mine.scale == CEILING


@pytest.mark.parametrize("scale", [2.0**16, 2.0])
def test_scaling_by_a_power_of_two_rounds_nothing(scale):
    value = torch.randn(100, requires_grad=True)
    mine = first_scale("cpu")
    mine.scale.fill_(scale)
    loss = (value**3).sum()
    (plain,) = torch.autograd.grad(loss, value, retain_graph=True)
    (loss * mine.scale).backward()
    unscale([value], mine)
    assert torch.equal(value.grad, plain)
