import copy

import pytest
import torch
from torch import nn

from slam.models.group_norm import use_float32_norms


def pair() -> tuple[nn.GroupNorm, nn.GroupNorm]:
    """Ours, and PyTorch's with the same parameters."""
    torch.manual_seed(0)
    plain = nn.GroupNorm(4, 16)
    for value in plain.parameters():
        nn.init.normal_(value)
    return use_float32_norms(nn.Sequential(copy.deepcopy(plain)))[0], plain


def test_in_float32_it_is_pytorchs_own():
    mine, plain = pair()
    x = torch.randn(2, 16, 8, 8).to(memory_format=torch.channels_last)
    assert torch.equal(mine(x), plain(x))
    assert list(mine.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", ["float32", "low"])  # of a student under autocast; of a frozen teacher
def test_in_a_low_precision_only_the_result_is_rounded(low, weights):
    mine, plain = pair()
    x = (4 + torch.randn(2, 16, 8, 8)).to(low).to(memory_format=torch.channels_last)  # a mean that is not 0
    if weights == "low":
        mine.to(low), plain.to(low)
    out = mine(x)
    assert out.dtype == low and out.is_contiguous(memory_format=torch.channels_last)
    exact = plain.double()(x.double())
    torch.testing.assert_close(out.double(), exact, rtol=torch.finfo(low).eps, atol=1e-4)


def test_gradients_reach_float32_parameters_through_bfloat16():
    mine, plain = pair()
    x = torch.randn(2, 16, 8, 8).bfloat16()
    y = x.double().requires_grad_()
    x.requires_grad_()
    mine(x).float().square().sum().backward()
    exact = plain.double()
    exact(y).square().sum().backward()
    assert mine.weight.grad.dtype == torch.float32 and x.grad.dtype == torch.bfloat16
    for found, oracle in [(x.grad, y.grad), (mine.weight.grad, exact.weight.grad), (mine.bias.grad, exact.bias.grad)]:
        assert (found.double() - oracle).norm() < 0.02 * oracle.norm()
