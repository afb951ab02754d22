"""The numbers of every method on the shipped teacher, kept in git.

A change that should not alter numbers leaves tests/golden/ as it is. After one that should, run
`pytest tests/training/test_golden.py --update-golden`, read `git diff tests/golden`, and commit the files with it.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from slam.config import Distill, Train
from slam.config import load as load_profile
from slam.data.latents import identity
from slam.files import sha256, write_json
from slam.models.diffusion import load
from slam.training.journal import read_journal
from slam.training.loop import train
from slam.training.plan import make_plan

GOLDEN = Path(__file__).parents[1] / "golden"
TEACHER = "teachers/tiny"
# All of it is here, so that a new recipe in params.yaml leaves the numbers alone.
DISTILL = {
    "method": "slam",
    "conditioning": "time-matched",
    "sigma": "linear",
    "distance": "huber",
    "k": 20,
    "k_phi": 20,
    "w": 5.0,
}
TRAIN = {"steps": 4, "batch": 8, "lr": 1e-4, "checkpoint_every": 4, "keep": 1}
RUNS = {
    "slam": {},
    "slam-gamma": {"conditioning": "gamma"},
    "slam-gamma-continuous": {"conditioning": "gamma-continuous"},
    "slam-exact-sigma": {"sigma": "exact"},
    "slam-multiple-estimation": {"k": 100},
    "slam-huber-vector": {"distance": "huber-vector"},
    "slam-l2": {"distance": "l2"},
    "slam-weighting-step": {"weighting": "step"},
    "slam-lora": {"lora": {"rank": 4, "alpha": 4}},
    "dl": {"method": "dl", "sigma": "exact"},
    "lcm": {"method": "lcm"},
    "lcm-w": {"method": "lcm_w", "w_min": 2.0, "w_max": 8.0},
}


@pytest.fixture(scope="module")
def latents(tmp_path_factory) -> Path:
    """32 random latents of the shipped teacher's VAE, as the encode stage leaves them."""
    folder = tmp_path_factory.mktemp("latents")
    model = load(TEACHER, ("tokenizer",))
    colours = ("red", "green", "blue", "yellow")
    captions = [f"a {size} {colour} circle" for size in ("small", "large") for colour in colours] * 4
    values = torch.randn(32, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    file = folder / "train-00000.safetensors"
    save_file({"latents": values, "input_ids": model.tokenize(captions).int()}, file)
    shard = {"file": file.name, "split": "train", "count": 32, "sha256": sha256(file)}
    write_json(
        folder / "index.json", {**{part: identity(TEACHER, part) for part in ("vae", "tokenizer")}, "shards": [shard]}
    )
    return folder


def steps_of(changes, latents, out):
    """(loss, gradient norm) of each step of the loop itself, in this process."""
    lora = changes.get("lora")
    distill = Distill(**DISTILL | {key: value for key, value in changes.items() if key != "lora"})
    profile = load_profile(profile="tiny").model_copy(
        update={"teacher": TEACHER, "distill": distill, "train": Train(**TRAIN, lora=lora)}
    )
    make_plan(profile, latents).write(out)
    assert train(out) == 0
    return [(line["loss"], line["grad_norm"]) for line in read_journal(out / "journal.jsonl")]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_losses_are_the_golden_ones(name, latents, tmp_path, request):
    """Loosely after step 1: other CPUs round otherwise, and Adam makes a step of the learning rate's size of a gradient
    that is rounding."""
    found, file = steps_of(RUNS[name], latents, tmp_path), GOLDEN / f"{name}.losses"
    if request.config.getoption("--update-golden"):
        rows = [f"{step:4d} {loss:12.6g} {norm:12.6g}\n" for step, (loss, norm) in enumerate(found, 1)]
        file.write_text("step         loss    grad_norm\n" + "".join(rows))
    golden = [tuple(map(float, row.split()[1:])) for row in file.read_text().splitlines()[1:]]
    assert len(found) == len(golden) == TRAIN["steps"]
    for step, (mine, expected) in enumerate(zip(found, golden, strict=True), 1):
        assert mine == pytest.approx(expected, rel=1e-3 if step == 1 else 1e-2), f"step {step}"
