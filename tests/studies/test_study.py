"""The study: its variants cost the same, its claims follow from its numbers, and a part of it runs for real."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from slam.errors import SlamError
from slam.files import write_json
from studies.baselines import run_baselines
from studies.report import main as write_report
from studies.results import Results, verdict
from studies.run import run_variant
from studies.variants import load_study, passes, profile_of

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", ["studies", "studies/quick"])
def test_every_variant_costs_the_budget_up_to_one_step(folder):
    study = load_study(REPOSITORY / folder / "study.yaml")
    for name in study.variants:
        profile = profile_of(study, name)
        cost = passes(profile.distill)
        assert study.budget - cost < cost * profile.train.steps <= study.budget, name


def test_passes_are_two_of_the_teacher_a_solver_step_and_four_of_the_rest():
    study = load_study(REPOSITORY / "studies/study.yaml")
    cost = {name: passes(profile_of(study, name).distill) for name in ("slam", "slam-k20", "slam-k100-jump")}
    assert cost == {"slam": 14, "slam-k20": 6, "slam-k100-jump": 6}


def test_both_dvc_files_have_the_same_stages():
    full, quick = (
        yaml.safe_load((REPOSITORY / part / "dvc.yaml").read_text()) for part in ("studies", "studies/quick")
    )

    def outs(document):
        stages = {**document["stages"], "variant": document["stages"]["variant"]["do"]}
        return [out for stage in stages.values() for entry in stage["outs"] for out in entry]

    assert outs(quick) == [out.replace("studies/", "studies/quick/") for out in outs(full)]


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        ([1.0, 2.0, 3.0], [3.1, 4.0, 5.0], "lower on every seed"),
        ([3.1, 4.0, 3.5], [1.0, 3.0, 2.0], "higher on every seed"),
        ([1.0, 3.0, 2.0], [2.0, 4.0, 3.0], "not separated: the seeds' ranges meet"),
        ([1.0, 1.1], [2.0, 2.1], "too few seeds for a claim"),
    ],
)
def test_only_ranges_that_do_not_meet_carry_a_claim(ours, theirs, says):
    assert verdict(np.array(ours), np.array(theirs)) == says


@pytest.fixture
def folder(tmp_path):
    """A study of two variants in `tmp_path/study`."""
    values = yaml.safe_load((REPOSITORY / "studies/study.yaml").read_text())
    values["variants"] = {name: values["variants"][name] for name in ("slam", "lcm-k20")}
    (tmp_path / "study").mkdir()

    def write(**changes):
        (tmp_path / "study/study.yaml").write_text(yaml.safe_dump({**values, **changes}))
        return tmp_path / "study"

    return write


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": 3}, "budgets is not a key: did you mean budget"),
        ({"variants": {"a": {"set": {"distil.k": 20}}}}, r"variant a: distil\.k is not a key of a profile"),
        ({"variants": {"a": {"set": {"distill.k": 30}}}}, r"variant a: .*distill\.k = 30 must be a multiple"),
        ({"variants": {"a": {"set": {"distill.kk": 30}}}}, r"variant a: .*kk is not a key"),
    ],
)
def test_a_mistake_in_a_study_is_said_before_any_training(changes, message, folder):
    with pytest.raises(SlamError, match=message):
        load_study(folder(**changes) / "study.yaml")


def test_a_study_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SlamError, match=r"study\.yaml does not exist"):
        load_study(tmp_path / "study.yaml")


@pytest.fixture
def project(random_teacher, random_judge, random_clip, evaluation_set, latents, tmp_path, monkeypatch):
    """A folder with params.yaml, data and a study, everything small: a training takes seconds."""
    monkeypatch.chdir(tmp_path)
    tiny = yaml.safe_load((REPOSITORY / "params.yaml").read_text())["profiles"]["tiny"]
    tiny["teacher"] = str(random_teacher)
    tiny["evaluate"] |= {"features": str(random_judge), "judge": str(random_judge), "clip": str(random_clip)}
    tiny["evaluate"] |= {"steps": [1, 2, 4], "teacher_steps": 50, "batch": 8, "rows": 4}
    tiny["train"] |= {"batch": 4, "log_every": 1}
    Path("params.yaml").write_text(yaml.safe_dump({"profile": "tiny", "profiles": {"tiny": tiny}}))
    shutil.copytree(latents, "data/latents")
    shutil.copytree(evaluation_set, "data/evaluation")
    study = yaml.safe_load((REPOSITORY / "studies/study.yaml").read_text())
    study |= {"budget": 28, "points": 2, "seeds": 2, "samples": 8}
    study["baselines"] = {"samplers": ["ddim", "dpm", "dpm++", "unipc"], "steps": [1, 2, 4], "guidance": [5.0]}
    names = ("slam", "lcm", "slam-k20", "lcm-w", "slam-w8", "slam-lora")
    study["variants"] = {name: study["variants"][name] for name in names}
    study["variants"]["slam-w8"]["seeds"] = 1
    Path("study").mkdir()
    Path("study/study.yaml").write_text(yaml.safe_dump(study))
    return Path("study")


@pytest.mark.slow
def test_a_study_is_run_reported_and_not_run_twice(project):
    study, results = load_study(project / "study.yaml"), project / "results"
    for name in ("slam", "lcm-w", "slam-w8", "slam-lora"):
        run_variant(study, name, results, Path("runs"))
    run_baselines(project)
    once = {file.name: file.read_bytes() for file in results.iterdir()}
    run_variant(study, "slam", results, Path("runs"))
    run_baselines(project)
    assert {file.name: file.read_bytes() for file in results.iterdir()} == once

    slam = json.loads(once["slam.json"])
    assert [seed["seed"] for seed in slam["seeds"]] == [0, 1]
    assert [point["step"] for point in slam["seeds"][0]["curve"]] == [1, 2]
    assert [point["t"] for point in slam["seeds"][0]["gap"]][:2] == [119, 139]
    told = json.loads(once["lcm-w.json"])["seeds"][0]["curve"][-1]["rows"]
    assert [(row["guidance"], row["steps"]) for row in told] == [(w, n) for w in (5.0, 8.0) for n in (1, 2, 4)]
    with Image.open(results / "slam.png") as strip:
        assert strip.size == (8 * 32, 3 * 32)

    write_report(project)
    text = (project / "REPORT.md").read_text()
    assert "Not run yet: lcm, slam-k20." in text
    assert "LCM told w" in text and "teacher, DDIM 50 steps" in text
    for name in ("training-fid", "training-to_teacher", "error", "guidance", "pictures"):
        assert (project / f"figures/{name}.png").stat().st_size > 1000
    # One line for each row of each curve, and the baselines'
    lines = (project / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + 13 + 2 * 2 * 3 + 2 * 6 + 3 + 3


@pytest.mark.slow
def test_a_seed_of_another_configuration_is_measured_again(project):
    study, results = load_study(project / "study.yaml"), project / "results"
    run_variant(study, "slam-w8", results, Path("runs"))
    before = json.loads((results / "slam-w8.json").read_text())
    before["seeds"][0]["fingerprint"] = "of another run"
    write_json(results / "slam-w8.json", before)
    run_variant(study, "slam-w8", results, Path("runs"))
    after = json.loads((results / "slam-w8.json").read_text())
    assert after["seeds"][0]["fingerprint"] != "of another run"
    fids = [[row["fid"] for row in it["seeds"][0]["curve"][-1]["rows"]] for it in (before, after)]
    assert fids[0] == fids[1]  # a function of the seed


def test_a_variant_that_is_not_there_is_named(project):
    with pytest.raises(SlamError, match=r"slam-k7 is not a variant of this study: expected one of lcm, "):
        run_variant(load_study(project / "study.yaml"), "slam-k7", project / "results", Path("runs"))


def test_results_that_are_not_there_yet_are_not_in_them(tmp_path):
    results = Results(tmp_path)
    assert (
        "slam" not in results and results.spread("slam", "fid", 1) is None and results.baseline("ddim", 1, 5.0) is None
    )
