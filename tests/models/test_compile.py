"""Networks compiled without guards on their modules: each runs what was made of it."""

from functools import partial

import torch
from torch import nn

from slam.models import fast


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_networks_of_one_class_do_not_run_each_other_s_code(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    networks = [Scaled(factor) for factor in (2, 3)]
    for network in networks:
        fast.compile_alone(network)
    assert [network(torch.ones(1)).item() for network in networks] == [2, 3]
    networks[0].factor = 5
    assert networks[0](torch.ones(1)).item() == 2  # nothing looks at it again


def test_another_shape_or_grad_mode_is_compiled_anew(monkeypatch):
    graphs = []
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=lambda graph, _: graphs.append(1) or graph))
    network = Scaled(2)
    fast.compile_alone(network)
    for size in (1, 2, 2, 1):
        assert torch.equal(network(torch.ones(size)), torch.full((size,), 2.0))
    with torch.no_grad():
        network(torch.ones(1))
    assert len(graphs) == 3
