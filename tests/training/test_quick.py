"""`train.speed`: how a step is computed, never what."""

import copy
import resource

import pytest
import torch
from accelerate import Accelerator

from slam.config import parse
from slam.config_speed import Speed
from slam.data.latents import Latents
from slam.errors import SlamError
from slam.models.diffusion import load
from slam.training.allocator import keep_memory
from slam.training.batches import global_draw, local_batches
from slam.training.contexts import encoded
from slam.training.graphs import copy_into, tensors
from slam.training.objective import make_objective
from slam.training.plan import make_plan
from slam.training.quick import computed_target, quick_step
from slam.training.state import first_state
from slam.training.step import train_step


def run(profile, latents, **speed):
    """(loss, gradient norm, skipped, scale) of two steps [2, 4]."""
    plan = make_plan(profile(**{"train.speed": Speed(**speed)}), latents)
    accelerator, model = Accelerator(cpu=True), load(plan.teacher)
    objective, network = make_objective(plan, model)
    target = copy.deepcopy(network).requires_grad_(False)
    state = first_state(plan.train, network.unet, target.unet)
    take = quick_step(train_step, plan.train, objective, accelerator, network, target, state)
    data = encoded(Latents(latents, "train"), objective.embed, objective.null, plan.train.speed.text_cache)
    steps = [local_batches(plan, data, global_draw(plan, model.latent_shape, 1000, i), i, 0, 1) for i in range(2)]
    return torch.stack([take(batches) for batches in steps])


@pytest.mark.parametrize(
    "speed",
    [
        {"one_batch": False},
        {"channels_last": False},
        {"attention": "math"},
        {"fused": False},
        {"onednn": False},
        {"keep_memory": False},
        {"text_cache": 0},
        pytest.param({"compile": True}, marks=pytest.mark.nightly),
    ],
    ids=lambda speed: next(iter(speed)),
)
def test_a_switch_leaves_the_numbers_but_for_rounding(speed, profile, latents):
    """Loosely after step 1: Adam makes a step of the learning rate's size of a gradient that is rounding."""
    found, default = run(profile, latents, **speed), run(profile, latents)
    torch.testing.assert_close(found[0], default[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(found[1], default[1], rtol=1e-2, atol=0)


@pytest.mark.parametrize("frozen", ["bf16", "fp8"])
def test_a_low_precision_of_what_is_not_trained_moves_the_loss_a_little(frozen, profile, latents):
    low, high = run(profile, latents, frozen=frozen), run(profile, latents)
    torch.testing.assert_close(low[:, 0], high[:, 0], rtol=0.1, atol=0)
    assert not torch.equal(low[0], high[0])


def test_a_low_precision_target_is_the_float32_average_rounded(profile, latents):
    speed = {"frozen": "bf16"}
    config = profile(**{"train.speed": speed}).train
    plan = make_plan(profile(), latents)
    _, network = make_objective(plan, load(plan.teacher))
    average = first_state(config, network.unet, copy.deepcopy(network).unet).target
    target, follow = computed_target(network, average, config)
    with torch.no_grad():
        average["conv_in.weight"].add_(1)
    follow()
    found = dict(target.unet.unet.named_parameters())["conv_in.weight"]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, average["conv_in.weight"].bfloat16())


def test_without_the_fused_kernels_a_step_that_is_not_finite_is_skipped_too(profile, latents):
    plan = make_plan(profile(**{"train.speed": {"fused": False}}), latents)
    objective, network = make_objective(plan, load(plan.teacher))
    target = copy.deepcopy(network).requires_grad_(False)
    state = first_state(plan.train, network.unet, target.unet)
    before = {name: value.detach().clone() for name, value in state.student.items()}
    batch = local_batches(plan, Latents(latents, "train"), global_draw(plan, (4, 8, 8), 1000, 0), 0, 0, 1)[0]
    poisoned = [batch._replace(latents=batch.latents * float("nan"))]
    assert train_step(objective, Accelerator(cpu=True), network, target, state, poisoned)[2] == 1
    assert all(torch.equal(value, before[name]) for name, value in state.student.items())


def test_switches_are_no_part_of_what_a_run_is_but_those_that_round_coarsely(profile, latents):
    def identity(**speed):
        return make_plan(profile(**{"train.speed": speed}), latents).identity

    default = make_plan(profile(), latents).identity
    assert identity(fused=False, compile=True, onednn=False) == default
    assert "speed" not in default["train"]
    assert identity(frozen="fp8")["train"]["speed"] == {"frozen": "fp8"}


def test_graphs_are_refused_where_they_cannot_be(profile, latents):
    with pytest.raises(SlamError, match=r"train\.speed\.graphs = true needs a CUDA device, found cpu"):
        run(profile, latents, graphs=True)
    with pytest.raises(SlamError, match=r"needs train\.speed\.fused = true"):
        parse({"graphs": True, "fused": False}, "train.speed", Speed)


def test_a_batch_is_copied_into_the_buffers_of_a_graph(profile, latents):
    plan, data = make_plan(profile(), latents), Latents(latents, "train")
    buffers, other = (local_batches(plan, data, global_draw(plan, (4, 8, 8), 1000, i), i, 0, 1) for i in (0, 1))
    addresses = [value.data_ptr() for value in tensors(buffers)]
    copy_into(buffers, other)
    assert all(torch.equal(a, b) for a, b in zip(tensors(buffers), tensors(other), strict=True))
    assert [value.data_ptr() for value in tensors(buffers)] == addresses
    with pytest.raises(ValueError, match="was captured"):
        copy_into(buffers, [batch._replace(latents=batch.latents[:2]) for batch in other])


@pytest.mark.skipif(not keep_memory(), reason="not glibc's allocator")
def test_memory_that_is_kept_costs_no_page_faults():
    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            torch.zeros(2**20).add_(1)  # 4 MiB: 1,024 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 1024


def test_compiling_without_a_compiler_is_refused_with_the_key(profile, latents, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SlamError, match=r"train.speed.compile = true needs a C\+\+ compiler.*no-such-compiler"):
        run(profile, latents, compile=True)
