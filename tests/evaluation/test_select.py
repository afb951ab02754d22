import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from slam.config import Select
from slam.config import load as load_profile
from slam.data import shapes
from slam.errors import SlamError
from slam.evaluation.generate import generate
from slam.evaluation.select import select_stage
from slam.files import sha256, write_json
from slam.models.diffusion import load
from slam.training import checkpoint
from slam.training.plan import Plan

N = 24


@pytest.fixture(scope="module")
def latents(random_teacher, tmp_path_factory):
    """Validation latents that the teacher itself draws with one LCM step: its own weights are the best student."""
    folder = tmp_path_factory.mktemp("latents")
    model, captions = load(random_teacher), shapes.draw(N, 3).captions
    drawn = generate(model, captions, sampler="lcm", steps=1, seed=0, batch=N, label="latents")
    pixels = torch.cat([part.pictures for part in drawn]).float() / 127.5 - 1
    save_file(
        {"latents": model.encode(pixels).half().contiguous(), "input_ids": model.tokenize(captions).int()},
        folder / "validation-00000.safetensors",
    )
    rows = {"split": "validation", "shard": "validation-00000.safetensors", "row": range(N), "caption": captions}
    pd.DataFrame(rows).to_parquet(folder / "manifest.parquet")
    shard = {"file": "validation-00000.safetensors", "split": "validation", "count": N}
    write_json(folder / "index.json", {"shards": [shard | {"sha256": sha256(folder / shard["file"])}]})
    return folder


@pytest.fixture
def train(random_teacher, tmp_path):
    """Three checkpoints; the second is the teacher, the others are further from it. The fourth was never finished."""
    weights = {name: w.contiguous() for name, w in load(random_teacher, ("unet",)).unet.state_dict().items()}
    for step, push in ((10, 0.05), (20, 0.0), (30, 0.1)):
        torch.manual_seed(step)
        write_checkpoint(tmp_path, step, {name: w + push * torch.randn_like(w) for name, w in weights.items()})
    (tmp_path / "checkpoints" / "step-000040").mkdir()
    tiny = load_profile("params.yaml", "tiny")
    Plan(str(random_teacher), "latents", tiny.distill, tiny.train, "", "").write(tmp_path)
    return tmp_path


def write_checkpoint(train, step, weights, **further):
    checkpoint.write(train / "checkpoints", step, "", 1, {"ema.safetensors": weights, **further})


@pytest.fixture
def select(random_teacher, random_judge, latents, train, tmp_path):
    def stage(**changed):
        config = Select(**{"samples": 16, "steps": (1, 2), "batch": 8, "seed": 1} | changed)
        out = {"student": tmp_path / "student", "selection": tmp_path / "selection.json"}
        return select_stage(config, str(random_judge), str(random_teacher), train, latents, **out)

    return stage


def test_the_best_checkpoint_is_exported_not_the_last(select, random_teacher, tmp_path):
    summary = select()
    report = json.loads((tmp_path / "selection.json").read_text())
    assert summary["chosen"] == report["chosen"] == "step-000020"
    assert [entry["checkpoint"] for entry in report["checkpoints"]] == ["step-000010", "step-000020", "step-000030"]
    for entry in report["checkpoints"]:
        one, two = entry["frechet"].values()
        assert entry["score"] == pytest.approx((one * two) ** 0.5)
    exported, teacher = (load(folder, ("unet",)).unet.state_dict() for folder in (tmp_path / "student", random_teacher))
    assert all(torch.equal(exported[name], teacher[name]) for name in teacher)


def test_each_average_of_a_checkpoint_is_a_candidate(select, train, random_teacher, tmp_path):
    """Here the target is far off, and the average of 0.9 is the teacher itself."""
    weights = {name: w.contiguous() for name, w in load(random_teacher, ("unet",)).unet.state_dict().items()}
    shutil.rmtree(train / "checkpoints")
    far, near = ({name: w + push for name, w in weights.items()} for push in (0.1, 0.05))
    write_checkpoint(train, 10, far, **{"ema-0.5.safetensors": near, "ema-0.9.safetensors": weights})
    write_checkpoint(train, 20, far)
    assert select()["chosen"] == "step-000010/ema-0.9.safetensors"
    report = json.loads((tmp_path / "selection.json").read_text())
    measured = [(entry["checkpoint"], entry["average"]) for entry in report["checkpoints"]]
    first = [("step-000010", f"{name}.safetensors") for name in ("ema", "ema-0.5", "ema-0.9")]
    assert measured == [*first, ("step-000020", "ema.safetensors")]
    assert (report["chosen"], report["average"]) == first[2]
    exported = load(tmp_path / "student", ("unet",)).unet.state_dict()
    assert all(torch.equal(exported[name], weights[name]) for name in weights)


def test_a_checkpoint_that_changed_on_disk_is_refused(select, train, tmp_path):
    file = train / "checkpoints" / "step-000030" / "ema.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(SlamError, match="step-000030/ema.safetensors: expected sha256"):
        select()
    assert not (tmp_path / "student").exists()


def test_the_gamma_projection_of_a_checkpoint_is_left_out(select, train, random_teacher, tmp_path):
    weights = {name: w.contiguous() for name, w in load(random_teacher, ("unet",)).unet.state_dict().items()}
    write_checkpoint(train, 50, {**weights, "time_embedding.cond_proj.weight": torch.ones(16, 256)})
    select()
    measured = json.loads((tmp_path / "selection.json").read_text())["checkpoints"]
    assert measured[-1]["frechet"] == measured[1]["frechet"]


def test_no_checkpoint_and_too_few_validation_pictures_say_what_to_do(select, train):
    with pytest.raises(SlamError, match="select.samples = 25 validation pictures, found 24"):
        select(samples=25)
    for manifest in train.rglob("manifest.json"):
        manifest.unlink()
    with pytest.raises(SlamError, match="run `slam train` first"):
        select()
