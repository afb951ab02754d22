"""Measures the teacher and the training-free samplers: `python -m studies.baselines FOLDER`."""

from __future__ import annotations

from pathlib import Path

from slam.files import read_json, write_json
from studies.command import command
from studies.exam import PICTURES, Exam, write_strip
from studies.variants import load_study, profile_of


def run_baselines(name: str) -> None:
    """Writes FOLDER/results/baselines.json, and the pictures of each sampler and guidance scale beside it."""
    folder = Path(name)
    study, results = load_study(folder / "study.yaml"), folder / "results"
    exam, ask = Exam(profile_of(study)), study.baselines
    file = results / "baselines.json"
    before = read_json(file, "studies.baselines") if file.exists() else {}
    done = {key(row): row for row in before.get("rows", [])} if before.get("protocol") == exam.protocol else {}
    wanted = [(s, (n,), w) for w in ask.guidance for s in ask.samplers for n in ask.steps]
    wanted += [("ddim", (exam.config.teacher_steps,), w) for w in ask.guidance]
    rows = []
    for sampler, steps, guidance in wanted:
        found = done.get((sampler, *steps, guidance))
        if not found:
            (found,), pictures = exam.measured(exam.teacher, [sampler], steps, guidance, guidance)
            write_strip(pictures, results / f"baseline-{sampler}-{steps[0]}-w{guidance:g}")
        rows.append(found)
        about = {"protocol": exam.protocol, "samples": study.samples, "captions": exam.reference.captions[:PICTURES]}
        write_json(file, {**about, "rows": rows})


def key(row: dict) -> tuple:
    return row["sampler"], row["steps"], row["guidance"]


if __name__ == "__main__":
    command(run_baselines, "FOLDER")
