"""Writes the report of what a study has measured so far: `python -m studies.report FOLDER`.

FOLDER/REPORT.md with its figures, results.csv with every number, and a run of the MLflow experiment `slam-study`. Every
sentence about which is better is made from the numbers by `results.verdict`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import yaml

from slam.files import whole_file
from slam.registry.track import log_report
from studies import figures
from studies.command import command
from studies.results import Results
from studies.tables import STEPS, best, compare, student, table, tables, training_free, write_csv
from studies.variants import Study, load_study, profile_of

PAPER = Path(__file__).with_name("paper.yaml")
SAMPLERS = (("ddim", "DDIM"), ("dpm", "DPM-Solver"), ("dpm++", "DPM-Solver++"), ("unipc", "UniPC"))
TRAINED = (
    ("lcm-k20", "LCM, fixed w, k = 20"),
    ("slam-k20", "SLAM, k = 20"),
    ("slam-k20-half", "SLAM, k = 20, gamma = 1 in half: the tiny profile's"),
    ("lcm", "LCM, fixed w, k = 100 + ME"),
    ("slam", "SLAM, k = 100 + ME"),
    ("slam-half", "SLAM, k = 100 + ME, gamma = 1 in half"),
)
# Plain SLAM is time-matched, with gamma ~ U[0, 1), linear sigma, Huber, the same weight for every t.
CHOICES = {
    "k = 20": (
        ("lcm-k20", "LCM"),
        ("slam-k20", "SLAM"),
        ("slam-k20-half", "SLAM, gamma = 1 in half"),
        ("slam-k20-gamma", "SLAM, the paper's embedding"),
        ("slam-k20-gamma-continuous", "SLAM, continuous embedding"),
        ("slam-k20-gamma-continuous-half", "SLAM, continuous embedding, gamma = 1 in half"),
    ),
    "k = 100 + ME": (
        ("lcm", "LCM"),
        ("slam", "SLAM"),
        ("slam-half", "SLAM, gamma = 1 in half"),
        ("slam-gamma", "SLAM, the paper's embedding"),
        ("slam-gamma-continuous", "SLAM, continuous embedding"),
        ("slam-gamma-continuous-half", "SLAM, continuous embedding, gamma = 1 in half"),
        ("slam-exact", "SLAM, exact sigma (App B)"),
        ("slam-step", "SLAM, weight 1 / (r_t - r_s)"),
        ("slam-noise", "SLAM, weight 1 / r_t"),
        ("slam-l2", "SLAM, L2"),
        ("lcm-l2", "LCM, L2"),
        ("slam-lora", "SLAM, LoRA of rank 16"),
    ),
}


def main_tables(results: Results, study: Study) -> str:
    text = ""
    for w in study.baselines.guidance:
        suffix = "" if w == profile_of(study).distill.w else f"-w{w:g}"
        rows = training_free(results, "ddim", "teacher, DDIM 50 steps", w, [50])
        for sampler, label in SAMPLERS:
            rows += training_free(results, sampler, label, w)
        for name, label in TRAINED:
            rows += student(results, name + suffix, label)
        rows += student(results, "lcm-w", "LCM told w, k = 100 + ME", w)
        text += f"**w = {w:g}**\n\n{tables(rows)}"
    return text


def paper_tables(paper: dict) -> str:
    head = ["the paper's Table 1: SD2.1-base, COCO-30k, w = 8", *(f"{m}, {n}" for m in ("FID", "CLIP") for n in STEPS)]
    text = table(head, [[name.upper(), *(f"{x:.2f}" for x in row)] for name, row in paper["table_1"].items()])
    rows = [
        [name.upper(), *(f"{x:.2f}" for x in (*paper["table_2a"][name], *paper["table_2c"][name]))]
        for name in ("lcm", "slam")
    ]
    return text + table(["the paper's Table 2: SD1.5, COCO-30k", "w = 3, 2 steps", "4", "w = 8, 2 steps", "4"], rows)


def table_3(results: Results, paper: dict) -> str:
    names = ("lcm", "dl", "slam")
    theirs = table(
        ["the paper's Table 3", *(n.upper() for n in names)],
        [["FID-30k, w = 8, 4 steps", *(f"{paper['table_3'][n]:.2f}" for n in names)]],
    )
    return tables([row for name in names for row in student(results, name, name.upper())]) + theirs


def choices(results: Results) -> str:
    """The forms of the method at both k: all of them, and which is least."""
    text, rows = "", []
    for (k, names), lcm in zip(CHOICES.items(), ("lcm-k20", "lcm"), strict=True):
        text += f"**{k}**\n\n" + tables([row for name, label in names for row in student(results, name, label)])
        cells = best(results, dict(names), lcm)
        rows += [[k, *cells]] if cells else []
    head = [f"{label}, {n} step{'s' * (n > 1)}" for label in ("FID", "to teacher") for n in STEPS]
    return text + (
        "The least mean of each column, and what the seeds say of it against LCM:\n\n" + table(["", *head], rows)
    ) * bool(rows)


def learning_rates(results: Results) -> str:
    names = [f"{method}{k}" for k in ("", "-k20") for method in ("lcm", "slam")]
    suffixes = {"-lr12": "1.25e-4", "": "2.5e-4", "-lr50": "5e-4"}
    labels = dict(TRAINED)
    return tables(
        [
            row
            for name in names
            for suffix, lr in suffixes.items()
            for row in student(results, name + suffix, f"{labels[name]}, {lr}")
        ]
    )


def cost_table(results: Results) -> str:
    rows = []
    for name, variant in results.variants.items():
        cost, settings = results.cost(name), variant["distill"]
        me = " + ME" if settings["multiple_estimation"] and settings["k"] > settings["k_phi"] else ""
        seconds = (f"{cost['seconds']:.0f}", f"{cost['cpu']:.0f}")
        seeds = str(len(variant["seeds"]))
        rows.append([name, seeds, f"{settings['k']}{me}", str(cost["steps"]), f"{cost['passes']:,}", *seconds])
    return table(["variant", "seeds", "k", "steps", "passes", "seconds", "CPU seconds"], rows)


def figure(results: Results, folder: Path, name: str, draw, caption: str) -> str:
    if draw(results, folder / "figures" / f"{name}.png"):
        return f"![{caption}](figures/{name}.png)\n\n"
    return "Not run yet.\n\n"


def report(study: Study, results: Results, folder: Path) -> str:
    paper = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    missing = [name for name in study.variants if name not in results]
    runs = sum(len(variant["seeds"]) for variant in results.variants.values())
    hours = sum(seed["cpu_seconds"] for v in results.variants.values() for seed in v["seeds"]) / 3600
    head = (folder / "about.md").read_text(encoding="utf-8") if (folder / "about.md").exists() else ""
    state = f"Not run yet: {', '.join(missing)}.\n\n" if missing else ""
    return "".join(
        [
            "# The paper's tables and figures on the tiny profile\n\n",
            f"{len(results.variants)} variants, {runs} trainings, {hours:.1f} hours of CPU in training. Each training "
            f"costs {study.budget:,} passes of the U-Net per row of the batch, at most; its last network is measured "
            f"on {study.samples:,} captions, all with the same noise. FID is the Frechet distance in the features of "
            "the tiny teacher's judge. A number with a range is the mean over seeds (least-greatest); one without is "
            "of one seed. Claims rest on three or more. ME is multiple estimation; passes and CPU s are what one "
            f"training took. `results.csv` has every number.\n\n{state}{head}\n",
            "## Does SLAM beat LCM at equal cost?\n\n",
            compare(
                results,
                "slam-k20-half",
                "lcm-k20",
                "k = 20, SLAM with gamma = 1 in half of the samples (the tiny profile's recipe) against LCM",
            ),
            compare(results, "slam-k20", "lcm-k20", "k = 20, plain SLAM against LCM"),
            compare(
                results, "slam-half", "lcm", "k = 100 + ME, SLAM with gamma = 1 in half of the samples against LCM"
            ),
            compare(results, "slam", "lcm", "k = 100 + ME, plain SLAM against LCM"),
            compare(results, "slam-w8", "lcm-w8", "k = 100 + ME, w = 8, plain SLAM against LCM"),
            compare(results, "slam", "lcm-k20", "plain SLAM at k = 100 + ME against LCM at k = 20, the paper's pair"),
            "\n## Tables 1, 2a, 2c: samplers and students\n\n",
            main_tables(results, study),
            paper_tables(paper),
            "## Fig 2a: the skipping step\n\n",
            figure(
                results, folder, "skipping-step", figures.skipping_step, "FID and the distance to the teacher against k"
            ),
            compare(results, "slam-k100-jump", "lcm-k100-jump", "k = 100 without ME, SLAM against LCM"),
            compare(results, "slam", "slam-k100-jump", "SLAM at k = 100, with ME against without"),
            compare(results, "lcm", "lcm-k100-jump", "LCM at k = 100, with ME against without"),
            "\n## Fig 2b: training\n\n",
            *(
                figure(
                    results,
                    folder,
                    f"training-{metric}",
                    partial(figures.training, metric=metric),
                    f"{label} against cost",
                )
                for metric, label in figures.DISTANCES
            ),
            "## Fig 2c: the error delta(t, k = 20)\n\n",
            figure(results, folder, "error", figures.error, "delta over t"),
            "## Fig 3: guidance\n\n",
            figure(results, folder, "guidance", figures.guidance, "FID against CLIP score"),
            "## Table 3: direct linking, k = 100 + ME\n\n",
            table_3(results, paper),
            compare(results, "slam", "dl", "SLAM against DL"),
            compare(results, "dl", "lcm", "DL against LCM"),
            "\n## App B, and what else was tried\n\n",
            "Plain SLAM is time-matched, with gamma ~ U[0, 1), the linear sigma, Huber and the same weight for every "
            "t; each row changes what it names.\n\n",
            choices(results),
            *(
                compare(results, name, "slam", f"{label.removeprefix('SLAM, ')}, against plain SLAM at k = 100 + ME")
                for name, label in CHOICES["k = 100 + ME"][2:]
                if name.startswith("slam")
            ),
            "\n## The learning rate\n\n",
            "The same three for both methods; the middle one is the study's.\n\n",
            learning_rates(results),
            "## Fig 4-12: pictures\n\n",
            figure(results, folder, "pictures", figures.pictures, "the same prompts and noise, seed 0"),
            "## What it cost\n\n",
            "One training of each; seconds are this machine's, which other work may have shared.\n\n",
            cost_table(results),
        ]
    )


def main(name: str) -> None:
    folder = Path(name)
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
    command(main, "FOLDER")
