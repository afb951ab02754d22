"""Counts against the published ones of Stable Diffusion 1.5, and against real tensors."""

import psutil
import pytest
import torch

from slam.bench.cost import activations, flops, saved, weights
from slam.bench.report import bench
from slam.bench.subject import make_subject
from slam.errors import SlamError
from slam.models.diffusion import load


@pytest.fixture(scope="module")
def sd15(tmp_path_factory):
    changes = {"batch": 8, "processes": 1, "precision": "bf16", "k": 20}
    return make_subject("sd15", tmp_path_factory.mktemp("sd15"), **changes)


@pytest.mark.slow
def test_the_count_of_stable_diffusion_is_the_known_one(sd15):
    """GFLOP of a sample: forward 803, forward and backward 2,407; a step at k = 20 takes 4,816 beside the text."""
    model = sd15.model("meta")
    assert sum(value.numel() for value in model.unet.parameters()) == 859_520_964
    each = {part: count / 8e9 for part, count in flops(sd15, model).items()}
    assert each["student forward"] == pytest.approx(803, rel=0.01)
    assert each["student forward"] + each["backward"] == pytest.approx(2407, rel=0.01)
    assert each["teacher"] == pytest.approx(2 * each["target"], rel=1e-6)
    assert sum(each.values()) - each["text"] == pytest.approx(4816, rel=0.01)


@pytest.mark.slow
def test_a_training_of_stable_diffusion_at_micro_batch_8_is_estimated_below_40_gb(sd15):
    model = sd15.model("meta")
    held = sum(weights(sd15.plan, model).values())
    kept = [activations(sd15, model, 8, checkpointing) for checkpointing in (False, True)]
    assert kept[1] < kept[0] / 4
    assert held + kept[0] < 40e9


@pytest.mark.slow
def test_multiple_estimation_costs_its_passes_of_the_teacher(tmp_path):
    one, five = (make_subject("tiny", tmp_path, k=k) for k in (20, 100))
    model = one.model("cpu")
    once, often = flops(one, model), flops(five, model)
    assert often["teacher"] == 5 * once["teacher"]
    assert {**often, "teacher": 0} == {**once, "teacher": 0}


def test_activations_are_those_of_real_tensors(tmp_path):
    subject = make_subject("tiny", tmp_path)
    model = load(subject.plan.teacher, ("unet", "text_encoder"))
    unet = model.unet.requires_grad_(True)
    with saved() as sizes:
        out = unet(torch.zeros(4, 4, 8, 8), torch.zeros(4), encoder_hidden_states=torch.zeros(4, 16, 64)).sample
    own = {value.untyped_storage()._cdata for value in unet.parameters()}
    real = sum(size for key, size in sizes.items() if key not in own)
    assert out.requires_grad
    assert activations(subject, model, 4, False) == pytest.approx(real, rel=0.02)


def test_a_model_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    class Little:
        available = 10**9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    with pytest.raises(SlamError, match=r"sd15 needs 2\d\.\d GB for its weights alone.*1\.0 GB free: --steps 0"):
        list(bench("sd15", 1, None, False, False, batch=1, processes=1))
