import copy

import pytest
import torch
from torch import nn

from slam.models.onednn import OneDnnLinear, use_onednn

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


@pytest.mark.parametrize("shape, outputs, biased", [((5, 7, 24), 40, True), ((33, 24), 40, False), ((33, 24), 8, True)])
def test_value_and_gradients_are_those_of_a_linear_layer(shape, outputs, biased):
    """Against float64, which none of the two is; to more and to fewer features, which take turns in the gradient."""
    torch.manual_seed(0)
    true = nn.Linear(24, outputs, bias=biased).double()
    mine = use_onednn(copy.deepcopy(true).float())
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    y = x.detach().float().requires_grad_()
    gradient = torch.randn(*shape[:-1], outputs, dtype=torch.float64)
    out, expected = mine(y), true(x)
    out.backward(gradient.float())
    expected.backward(gradient)
    pairs = [(out, expected), (y.grad, x.grad)]
    pairs += [(a.grad, b.grad) for a, b in zip(mine.parameters(), true.parameters(), strict=True)]
    for found, oracle in pairs:
        torch.testing.assert_close(found.double(), oracle, rtol=1e-5, atol=1e-5)


def test_names_copies_and_other_types_stay_as_they_were():
    network = use_onednn(nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16)))
    assert list(network.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert type(copy.deepcopy(network)[0]) is OneDnnLinear
    low = network.bfloat16()(torch.ones(2, 16, dtype=torch.bfloat16))
    assert low.dtype == torch.bfloat16


def test_a_frozen_weight_gets_no_gradient():
    network = use_onednn(nn.Linear(8, 8).requires_grad_(False))
    x = torch.ones(3, 8, requires_grad=True)
    network(x).sum().backward()
    assert network.weight.grad is None and x.grad is not None


def test_traced_for_a_compiler_it_is_one_operation_with_the_same_numbers():
    network, x = use_onednn(nn.Linear(24, 40)), torch.randn(5, 24)
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    traced = torch.compile(network, backend=keep)
    torch.testing.assert_close(traced(x), network(x))
    with torch.no_grad():
        torch.testing.assert_close(traced(x), network(x))
    assert any("slam.product" in graph.code for graph in graphs)
    torch.library.opcheck(torch.ops.slam.product, (x, network.weight.detach(), network.bias.detach()))
