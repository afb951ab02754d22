"""Attention over few tokens against diffusers' fused processor, in float64 where one is to be called right."""

import copy

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch.nn import functional as F

from slam.models.attention import FEW, FewTokens


def attention(cross: int | None, **other) -> Attention:
    torch.manual_seed(0)
    return Attention(query_dim=32, cross_attention_dim=cross, heads=4, dim_head=8, processor=FewTokens(), **other)


def told(cross: int | None, tokens: int = 16) -> tuple[torch.Tensor, torch.Tensor | None]:
    return torch.randn(3, tokens, 32), None if cross is None else torch.randn(3, 11, cross)


@pytest.fixture
def fused_calls(monkeypatch):
    seen, kernel = [], F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *args, **names: seen.append(1) or kernel(*args, **names)
    )
    return seen


@pytest.mark.parametrize("cross", [None, 24])
def test_value_and_gradients_are_those_of_the_fused_kernel_in_float64(cross, fused_calls):
    mine = attention(cross)
    x, context = told(cross)
    x.requires_grad_()
    out = mine(x, context)
    assert not fused_calls
    out.square().sum().backward()
    true = copy.deepcopy(mine).double()
    true.zero_grad()
    true.set_processor(AttnProcessor2_0())
    y = x.detach().double().requires_grad_()
    expected = true(y, None if context is None else context.double())
    expected.square().sum().backward()
    assert fused_calls
    pairs = [(out, expected), (x.grad, y.grad)]
    pairs += [(a.grad, b.grad) for a, b in zip(mine.parameters(), true.parameters(), strict=True)]
    for found, oracle in pairs:
        torch.testing.assert_close(found.double(), oracle, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("autocast", [True, False])
def test_in_bfloat16_it_errs_no_more_than_the_fused_kernel(autocast):
    mine = attention(None)
    x, _ = told(None)
    exact = copy.deepcopy(mine).double()(x.double())
    network, given = (mine, x) if autocast else (mine.bfloat16(), x.bfloat16())
    errors = {}
    for processor in (FewTokens(), AttnProcessor2_0()):
        network.set_processor(processor)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = network(given)
        assert out.dtype == torch.bfloat16
        errors[type(processor)] = (out.double() - exact).norm() / exact.norm()
    assert 0 < errors[FewTokens] < 1.05 * errors[AttnProcessor2_0] < 0.02


@pytest.mark.parametrize(
    "other, tokens, mask",
    [
        ({}, 1 + int(FEW**0.5), None),  # many tokens
        ({}, 16, torch.zeros(12, 1, 16)),
        ({"norm_num_groups": 4}, 16, None),
        ({"residual_connection": True}, 16, None),
        ({"rescale_output_factor": 2.0}, 16, None),
        ({"qk_norm": "layer_norm"}, 16, None),
    ],
)
def test_what_is_not_short_and_plain_is_left_to_diffusers(other, tokens, mask, fused_calls):
    mine = attention(None, **other)
    x, _ = told(None, tokens)
    out = mine(x, attention_mask=mask)
    assert len(fused_calls) == 1
    mine.set_processor(AttnProcessor2_0())
    assert torch.equal(out, mine(x, attention_mask=mask))
