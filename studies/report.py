"""Writes the report of what a study has measured so far: `python -m studies.report FOLDER`.

FOLDER/REPORT.md with its figures, results.csv with every number, and a run of the MLflow experiment `slam-study`. Every
sentence about which is better is made from the numbers by `results.verdict`.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from slam.errors import SlamError
from slam.files import whole_file
from slam.registry.track import log_report
from studies import figures
from studies.results import Results, verdict
from studies.variants import Study, load_study, profile_of

STEPS = figures.STEPS
METRICS = (
    ("fid", "FID", 2, 1),
    ("to_teacher", "to teacher", 2, 1),
    ("clip_score", "CLIP score", 1, 1),
    ("faithfulness", "faithful, %", 1, 100),
)
PAPER = Path(__file__).with_name("paper.yaml")
TRAINED = (
    ("lcm-k20", "LCM, fixed w, k = 20"),
    ("slam-k20", "SLAM, k = 20"),
    ("slam-k20-half", "SLAM, k = 20, gamma = 1 in half: the tiny profile's"),
    ("lcm", "LCM, fixed w, k = 100 + ME"),
    ("slam", "SLAM, k = 100 + ME"),
    ("slam-half", "SLAM, k = 100 + ME, gamma = 1 in half"),
    ("lcm-k200", "LCM, k = 200 + ME"),
    ("slam-k200", "SLAM, k = 200 + ME"),
    ("slam-k200-coarse", "SLAM, k = 200 + ME, k_phi = 40"),
)
ABLATIONS = (
    ("slam", "SLAM, plain: time-matched, gamma uniform, linear sigma, Huber, uniform weight"),
    ("slam-exact", "exact sigma (Eq 24) instead of linear (App B)"),
    ("slam-gamma", "the paper's embedding of gamma"),
    ("slam-gamma-continuous", "an embedding that is continuous at gamma = 1"),
    ("slam-gamma-continuous-half", "... and gamma = 1 in half of the samples"),
    ("slam-half", "time-matched, gamma = 1 in half of the samples"),
    ("slam-step", "loss weighted by 1 / (r_t - r_s)"),
    ("slam-noise", "loss weighted by 1 / r_t"),
    ("slam-l2", "L2 instead of Huber"),
    ("lcm-l2", "LCM, L2 instead of Huber"),
    ("slam-lora", "LoRA of rank 16 instead of all weights"),
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def columns() -> list[str]:
    return [f"{label}, {n}" for _, label, _, _ in METRICS for n in STEPS]


def student_row(results: Results, name: str, label: str, guidance: float | None = None) -> list[list[str]]:
    """[] for a variant that was not run."""
    cells = [label]
    for metric, _, digits, scale in METRICS:
        for steps in STEPS:
            found = results.spread(name, metric, steps, guidance)
            if found is None:
                return []
            scaled = type(found)(*(scale * value for value in found[:3]), found.seeds)
            cells.append(scaled.text(digits))
    return [cells]


def baseline_row(
    results: Results, sampler: str, label: str, guidance: float, steps: Sequence[int] = STEPS
) -> list[list[str]]:
    rows = [results.baseline(sampler, n, guidance) for n in steps]
    if None in rows:
        return []
    cells = [f"{scale * row[metric]:.{digits}f}" for metric, _, digits, scale in METRICS for row in rows]
    return [[label, *(cells if len(steps) == len(STEPS) else [text for cell in cells for text in (cell, "", "")])]]


def compare(results: Results, ours: str, theirs: str, says: str) -> str:
    """Both distances of two variants at each step count, with what the seeds say; "" while one is missing."""
    if ours not in results or theirs not in results:
        return ""
    lines = [f"* {says}\n"]
    for metric, label, digits, _ in METRICS[:2]:
        parts = []
        for steps in STEPS:
            a, b = (results.values(name, metric, steps) for name in (ours, theirs))
            means = f"{a.mean():.{digits}f} against {b.mean():.{digits}f}"
            parts.append(f"{steps} step{'s' * (steps > 1)} {means}, {verdict(a, b)}")
        lines.append(f"  * {label}: {'; '.join(parts)}.\n")
    return "".join(lines)


def main_tables(results: Results, study: Study) -> str:
    text = ""
    for w in study.baselines.guidance:
        suffix = "" if w == profile_of(study).distill.w else f"-w{w:g}"
        rows = baseline_row(results, "ddim", "teacher, DDIM 50 steps", w, [50])
        for sampler, label in (("ddim", "DDIM"), ("dpm", "DPM-Solver"), ("dpm++", "DPM-Solver++"), ("unipc", "UniPC")):
            rows += baseline_row(results, sampler, label, w)
        for name, label in TRAINED:
            rows += student_row(results, name + suffix, label)
        rows += student_row(results, "lcm-w", "LCM told w, k = 100 + ME", w)
        text += f"**w = {w:g}**\n\n" + table(["", *columns()], rows) if rows else ""
    return text


def paper_tables() -> str:
    paper = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    head = ["the paper's Table 1: SD2.1-base, COCO-30k, w = 8", *(f"{m}, {n}" for m in ("FID", "CLIP") for n in STEPS)]
    text = table(head, [[name.upper(), *(f"{x:.2f}" for x in row)] for name, row in paper["table_1"].items()])
    rows = [
        [name.upper(), *(f"{x:.2f}" for x in (*paper["table_2a"][name], *paper["table_2c"][name]))]
        for name in ("lcm", "slam")
    ]
    return text + table(["the paper's Table 2: SD1.5, COCO-30k", "w = 3, 2 steps", "4", "w = 8, 2 steps", "4"], rows)


def table_3(results: Results) -> str:
    paper = yaml.safe_load(PAPER.read_text(encoding="utf-8"))["table_3"]
    rows = []
    for name in ("lcm", "dl", "slam"):
        rows += [[*row, f"{paper[name]:.2f}"] for row in student_row(results, name, name.upper())]
    return table(["k = 100 + ME", *columns(), "the paper's FID at 4 steps, w = 8"], rows)


def learning_rates(results: Results) -> list[list[str]]:
    names = [f"{method}{k}" for k in ("", "-k20") for method in ("lcm", "slam")]
    suffixes = {"-lr12": "1.25e-4", "": "2.5e-4", "-lr50": "5e-4"}
    return [
        row
        for name in names
        for suffix, lr in suffixes.items()
        for row in student_row(results, name + suffix, f"{dict(TRAINED)[name]}, {lr}")
    ]


def cost_table(results: Results) -> str:
    rows = []
    for name, variant in results.variants.items():
        cost = results.cost(name)
        settings = variant["distill"]
        me = " + ME" if settings["multiple_estimation"] and settings["k"] > settings["k_phi"] else ""
        rows.append(
            [
                name,
                str(len(variant["seeds"])),
                f"{settings['k']}{me}",
                str(cost["steps"]),
                f"{cost['passes']:,}",
                f"{cost['seconds']:.0f}",
                f"{cost['cpu']:.0f}",
            ]
        )
    head = ["variant", "seeds", "k", "steps", "passes", "seconds", "CPU seconds"]
    return table(head, rows)


def write_csv(results: Results, path: Path) -> None:
    """One line for every variant, seed, point of the curve, step count and guidance scale; the baselines too."""
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        fields = (
            "variant",
            "seed",
            "train_steps",
            "sampler",
            "steps",
            "guidance",
            "fid",
            "to_teacher",
            "clip_score",
            "faithfulness",
        )
        writer = csv.DictWriter(file, (*fields, "captions_right", "seconds_per_image"), lineterminator="\n")
        writer.writeheader()
        writer.writerows({"variant": "teacher", **row} for row in results.baselines["rows"])
        for name, variant in results.variants.items():
            for seed in variant["seeds"]:
                for point in seed["curve"]:
                    about = {"variant": name, "seed": seed["seed"], "train_steps": point["step"]}
                    writer.writerows({**about, **row} for row in point["rows"])


def figure(results: Results, folder: Path, name: str, draw, caption: str) -> str:
    if draw(results, folder / "figures" / f"{name}.png"):
        return f"![{caption}](figures/{name}.png)\n\n"
    return "Not run yet.\n\n"


def report(study: Study, results: Results, folder: Path) -> str:
    missing = [name for name in study.variants if name not in results]
    runs = sum(len(variant["seeds"]) for variant in results.variants.values())
    hours = sum(seed["cpu_seconds"] for v in results.variants.values() for seed in v["seeds"]) / 3600
    head = (folder / "about.md").read_text(encoding="utf-8") if (folder / "about.md").exists() else ""
    state = f"Not run yet: {', '.join(missing)}.\n\n" if missing else ""
    return "".join(
        [
            "# The paper's tables and figures on the tiny profile\n\n",
            f"{len(results.variants)} variants, {runs} trainings, {hours:.1f} hours of CPU in training. Each variant's "
            f"training costs {study.budget:,} passes of the U-Net per row of the batch, at most; the last network is "
            f"measured, on {study.samples:,} captions with the same noise. FID is the Frechet distance in the features "
            "of the tiny teacher's judge. A number with a range is the mean over seeds (least-greatest). ME is "
            f"multiple estimation. `results.csv` has every number.\n\n{state}{head}\n",
            "## Does SLAM beat LCM at equal cost?\n\n",
            compare(results, "slam", "lcm", "k = 100 + ME, SLAM against LCM"),
            compare(
                results, "slam-half", "lcm", "k = 100 + ME, SLAM with gamma = 1 in half of the samples against LCM"
            ),
            compare(results, "slam-k20-half", "lcm-k20", "the same at k = 20"),
            compare(results, "slam-k20", "lcm-k20", "k = 20, SLAM against LCM"),
            compare(results, "slam-w8", "lcm-w8", "k = 100 + ME, w = 8, SLAM against LCM"),
            compare(results, "slam", "lcm-k20", "SLAM at k = 100 + ME against LCM at k = 20, the paper's pair"),
            "\n## Tables 1, 2a, 2c: samplers and students\n\n",
            main_tables(results, study),
            paper_tables(),
            "## Fig 2a: the skipping step\n\n",
            figure(results, folder, "skipping-step", figures.skipping_step, "FID against k"),
            compare(results, "slam-k100-jump", "lcm-k100-jump", "k = 100 without ME, SLAM against LCM"),
            compare(results, "slam", "slam-k100-jump", "SLAM at k = 100, with ME against without"),
            "\n## Fig 2b: training\n\n",
            figure(results, folder, "training", figures.training, "FID against steps and passes"),
            "## Fig 2c: the error delta(t, k = 20)\n\n",
            figure(results, folder, "error", figures.error, "delta over t"),
            "## Fig 3: guidance\n\n",
            figure(results, folder, "guidance", figures.guidance, "FID against CLIP score"),
            "## Table 3: direct linking\n\n",
            table_3(results),
            compare(results, "slam", "dl", "SLAM against DL"),
            compare(results, "dl", "lcm", "DL against LCM"),
            "\n## App B, and what else was tried\n\n",
            table(["", *columns()], [row for name, label in ABLATIONS for row in student_row(results, name, label)]),
            *(
                compare(results, "slam", name, f"The plain form against: {label}")
                for name, label in ABLATIONS[1:]
                if name.startswith("slam")
            ),
            "\n## The learning rate\n\n",
            "The same three for both methods; the middle one is the study's.\n\n",
            table(["", *columns()], learning_rates(results)),
            "## Fig 4-12: pictures\n\n",
            figure(results, folder, "pictures", figures.pictures, "the same prompts and noise, seed 0"),
            "## What it cost\n\n",
            "One training of each; seconds are this machine's, which other work may have shared.\n\n",
            cost_table(results),
        ]
    )


def main(folder: Path) -> None:
    study, results = load_study(folder / "study.yaml"), Results(folder / "results")
    text = report(study, results, folder)
    with whole_file(folder / "REPORT.md") as partial:
        partial.write_text(text, encoding="utf-8")
    write_csv(results, folder / "results.csv")
    metrics = {f"{name}/{n}/fid": results.spread(name, "fid", n).mean for name in results.variants for n in STEPS}
    log_report(
        Path(), f"study {folder.name}", [folder / "REPORT.md", folder / "results.csv", folder / "figures"], metrics
    )
    print(f"{folder / 'REPORT.md'}: {len(results.variants)} of {len(study.variants)} variants")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except SlamError as error:
        print(f"study: {error}", file=sys.stderr)
        sys.exit(error.code)
