"""Trains and measures one variant: `python -m studies.run FOLDER NAME`, in the folder that holds params.yaml.

FOLDER/study.yaml names the variants. Writes FOLDER/results/NAME.json after each seed, and NAME.png, pictures of the
first. The same command goes on from the last checkpoint, and does not repeat a seed that the results have.
"""

from __future__ import annotations

import resource
import shutil
import time
from pathlib import Path

from slam import paths
from slam.errors import SlamError
from slam.files import read_json, write_json
from slam.training.loop import train
from slam.training.plan import Plan, make_plan
from studies.command import command
from studies.exam import Exam
from studies.variants import Study, Variant, load_study, passes, profile_of

RUNS = Path("runs")


def run_variant(study: Study, name: str, results: Path, runs: Path) -> None:
    """Raises `SlamError` when there is no such variant."""
    if name not in study.variants:
        raise SlamError(f"{name} is not a variant of this study: expected one of {', '.join(study.variants)}")
    variant, file = study.variants[name], results / f"{name}.json"
    exam = Exam(profile_of(study))
    before = read_json(file, "studies.run") if file.exists() else {"seeds": []}
    known = {entry["fingerprint"]: entry for entry in before["seeds"]}
    seeds = []
    for seed in range(variant.seeds or study.seeds):
        profile = profile_of(study, name, seed)
        plan = make_plan(profile, paths.LATENTS)
        fingerprint = f"{plan.fingerprint[:16]}-{exam.protocol}"
        entry = known.get(fingerprint) or run_seed(plan, variant, exam, runs / name / f"seed-{seed}", results / name)
        seeds.append({"seed": seed, "fingerprint": fingerprint, **entry})
        common = {"variant": name, "distill": profile.distill.model_dump(), "train": profile.train.model_dump()}
        cost = {"passes": passes(profile.distill) * profile.train.steps, "samples": study.samples}
        write_json(file, {**common, **cost, "seeds": seeds})


def run_seed(plan: Plan, variant: Variant, exam: Exam, folder: Path, strip: Path) -> dict:
    """Trained to the end and measured. The weights are kept in `folder` until then."""
    old = folder / "plan.json"
    if old.exists() and read_json(old, "studies.run")["fingerprint"] != plan.fingerprint:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plan.write(folder)
    begin, cpu = time.perf_counter(), cpu_seconds()
    code = train(folder)
    if code:
        raise SlamError("stopped; the same command goes on from here", code)
    took = {"seconds": round(time.perf_counter() - begin, 1), "cpu_seconds": round(cpu_seconds() - cpu, 1)}
    measured = exam.take(plan, variant, folder, strip if plan.train.seed == 0 else None)
    shutil.rmtree(folder / "checkpoints")
    return {**took, **measured}


def cpu_seconds() -> float:
    """Of this process, all its threads, so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(folder: str, name: str) -> None:
    path = Path(folder)
    run_variant(load_study(path / "study.yaml"), name, path / "results", RUNS / path)


if __name__ == "__main__":
    command(main, "FOLDER", "NAME")
