"""`LeanAdamW` against `torch.optim.AdamW(fused=True)`: the same bits."""

import pytest
import torch

from slam.training.adamw import LeanAdamW

SHAPES = [(8, 4, 3, 3), (5,), (16, 7), (6, 8, 1, 1), ()]


def weights(layout):
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return [value.to(memory_format=layout) if value.ndim == 4 else value for value in made]


def gradients(step, like):
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.empty_like(value).copy_(torch.randn(value.shape, generator=generator)) for value in like]


def steps(optimizer, parameters, numbers, bad=()):
    for step in numbers:
        for value, gradient in zip(parameters, gradients(step, parameters), strict=True):
            value.grad = gradient if step not in bad else gradient / 0
        optimizer.found_inf = torch.tensor(float(step in bad))
        optimizer.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weights_and_moments_are_those_of_torch_also_over_a_skipped_step(layout):
    lean, torchs = weights(layout), weights(layout)
    one, other = LeanAdamW(lean, 1e-2, 0.1), torch.optim.AdamW(torchs, 1e-2, weight_decay=0.1, fused=True)
    for optimizer, parameters in ((one, lean), (other, torchs)):
        steps(optimizer, parameters, range(5), bad=(2,))
    assert all(torch.equal(a, b) for a, b in zip(lean, torchs, strict=True))
    mine, theirs = one.state_dict()["state"], other.state_dict()["state"]
    assert mine.keys() == theirs.keys()
    for index, state in theirs.items():
        assert mine[index].keys() == state.keys()
        assert all(torch.equal(mine[index][name], value) for name, value in state.items())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_loaded_it_goes_on_as_if_it_had_never_stopped(layout):
    whole, parts = weights(layout), weights(layout)
    steps(LeanAdamW(whole, 1e-2, 0.0), whole, range(6))
    first = LeanAdamW(parts, 1e-2, 0.0)
    steps(first, parts, range(3))
    second = LeanAdamW(parts, 1e-2, 0.0)
    second.load_state_dict(first.state_dict())
    steps(second, parts, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert second.state_dict()["state"][0]["step"] == 6
