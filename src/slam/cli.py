"""`slam`: parsing and nothing else. Each command calls one function, imported when it is needed."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from slam import cli_models, config, paths
from slam.cli_models import local_folder
from slam.errors import SlamError

app = typer.Typer(
    help="Distil a 50-step text-to-image model into a 1-4 step student. Run in the folder that holds params.yaml.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Profile = Annotated[
    str | None, typer.Option("--profile", help="a profile of params.yaml; its key `profile` by default")
]


@app.command()
def source(profile: Profile = None) -> None:
    """Stage 1: name or draw the captioned pictures, and the captions and images of the evaluation.

    The evaluation set, `captions` (COCO format) and `images`, may be left out or given to any but the first kind.
    A profile of params.yaml has one of these:

    \b
      # the procedural tiny world, drawn
      source: {kind: shapes, pictures: 6000, evaluation: 3072}
      # what img2dataset wrote as webdataset: 00000.tar, .parquet, _stats.json
      source: {kind: img2dataset, path: shards, captions: val.json, images: val}
      # LAION's or COYO's Parquet files, to be filtered before any download
      source: {kind: metadata, path: laion}
      # images with metadata.jsonl (or .csv, .parquet: file_name and text),
      # or with NAME.txt beside each
      source: {kind: folder, path: pictures}
      # COCO 2014 or 2017
      source: {kind: coco, path: train2017, annotations: captions_train2017.json}
    """
    from slam.data.source import source_stage

    _report("source", source_stage(_load(profile).source, paths.RAW, paths.EVALUATION))


@app.command()
def score(
    profile: Profile = None,
    convert: Annotated[Path | None, typer.Option(help="the public head's .pth: convert it, once, and end")] = None,
    out: Annotated[Path, typer.Option(help="with --convert: the file to write")] = Path(
        "weights/aesthetics.safetensors"
    ),
) -> None:
    """Between stages 1 and 2: aesthetics scores from the pictures, where the metadata has none.

    By the LAION predictor, whose head is converted once. The profile of params.yaml then says:

    \b
      score: {clip: openai/clip-vit-large-patch14, head: weights/aesthetics.safetensors}

    Without it, or with `score: null`, there is nothing to do.
    """
    if convert:
        from slam.models.aesthetics import convert as convert_head

        _report("score", convert_head(convert, out))
        return
    from slam.data.score import score_stage

    _report("score", score_stage(_load(profile).score, paths.RAW, paths.SCORES))


@app.command("filter")
def filter_(
    profile: Profile = None,
    engine: Annotated[
        Literal["serial", "processes", "dask"] | None,
        typer.Option(help="where the shards are worked on; by default here, in processes if there is enough to do"),
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="one for each core by default")] = None,
    scheduler: Annotated[str | None, typer.Option(help="dask: tcp://HOST:8786; by default workers here")] = None,
) -> None:
    """Stage 2: validate the metadata, keep what the limits allow, count what they reject."""
    from slam.data.filter.stage import filter_stage

    chosen = _load(profile)
    scores = paths.SCORES if chosen.score else None
    _report("filter", filter_stage(chosen.filter, paths.RAW, paths.FILTERED, scores, engine, processes, scheduler))


@app.command()
def encode(profile: Profile = None) -> None:
    """Stage 3: images to VAE latents, captions to token ids. The same command goes on from what a killed one did.

    Runs in `encode.processes` processes, or on several machines that share the folder, on each of them:
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m slam.cli encode
    """
    from slam.data.encode.stage import encode_stage

    chosen = _load(profile)
    places = paths.RAW, paths.FILTERED, paths.LATENTS
    counts = encode_stage(chosen.encode, chosen.teacher, *places, chosen.filter)
    if os.environ.get("RANK", "0") == "0":
        _report("encode", counts)


@app.command()
def train(
    profile: Profile = None,
    restart: Annotated[bool, typer.Option("--restart", help="set a run of another configuration aside")] = False,
    num_processes: Annotated[int | None, typer.Option(min=1, help="instead of train.processes; one a GPU")] = None,
) -> None:
    """Stage 4: distil (Algorithm 1). The same command again goes on from the newest checkpoint.

    The global batch, train.batch, is the same for any number of processes. On several machines that share the folder,
    on each of them:
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m slam.cli train
    """
    from slam.registry.feed import feeding
    from slam.training.stage import train_stage, with_processes

    chosen = _load(profile)
    chosen = with_processes(chosen, num_processes) if num_processes else chosen
    with feeding(paths.TRAIN):
        result = train_stage(chosen, paths.LATENTS, paths.TRAIN, restart)
    if os.environ.get("RANK", "0") == "0":
        _report("train", result)


@app.command()
def select(profile: Profile = None) -> None:
    """Stage 5: choose the checkpoint that samples best in few steps, export it as a diffusers folder."""
    from slam.evaluation.select import select_stage

    chosen = _load(profile)
    _report(
        "select",
        select_stage(
            chosen.select,
            chosen.evaluate.features,
            chosen.teacher,
            paths.TRAIN,
            paths.LATENTS,
            paths.STUDENT,
            paths.SELECTION,
        ),
    )


@app.command()
def evaluate(
    profile: Profile = None,
    model: Annotated[
        str | None,
        typer.Option(help="any model instead: a diffusers folder, hub id, models:/slam@champion, or a LoRA folder"),
    ] = None,
    champion: Annotated[
        str | None, typer.Option(help="a student to stand beside it, such as models:/slam@champion")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="--model: the folder of its report; reports/NAME by default")] = None,
) -> None:
    """Stage 6: FID, KID, precision, recall, CLIP score, faithfulness and seconds of teacher, samplers and student.

    --model measures another model under the same protocol; adapters (LoRA) are put on the profile's teacher.
    """
    from slam.evaluation.evaluate import evaluate_model, evaluate_stage

    chosen = _load(profile)
    beside = champion and Path(local_folder(champion))
    if model is None:
        if out:
            raise SlamError("--out is of --model alone: the stage writes to reports/")
        places = paths.STUDENT, paths.EVALUATION, paths.METRICS.parent
        _report("evaluate", evaluate_stage(chosen.evaluate, chosen.teacher, *places, beside))
        return
    from slam.evaluation.report import print_table

    out = out or paths.METRICS.parent / re.sub(r"[^\w.-]+", "-", model).strip("-.")
    places = local_folder(model), paths.EVALUATION, out
    records = evaluate_model(chosen.evaluate, *places, base=chosen.teacher, champion=beside, name=model)
    print_table(records)
    print(out)


@app.command()
def teacher(
    folder: Annotated[Path, typer.Argument(help="holds recipe.yaml; each part that it lacks is trained")] = Path(
        "teachers/tiny"
    ),
    part: Annotated[list[str] | None, typer.Option(help="only this part; may be given again")] = None,
) -> None:
    """Train the embedded teacher from nothing (about 90 minutes on two cores; it ships with the repository)."""
    from slam.teacher.build import PARTS, build

    for name, measured in build(folder, tuple(part or PARTS)).items():
        _report(name, measured)


for command in (cli_models.generate, cli_models.promote, cli_models.rollback, cli_models.bench):
    app.command()(command)


def _load(profile: str | None) -> config.Profile:
    return config.load(profile=profile)


def _report(stage: str, values: dict) -> None:
    print(f"{stage}: {', '.join(_told(key, value) for key, value in values.items())}")


def _told(key: str, value: object) -> str:
    if isinstance(value, dict):  # counts: those of zero say nothing
        return f"{key} {' + '.join(f'{count} {name}' for name, count in value.items() if count) or 0}"
    return f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"


def main() -> None:
    """The console script. A user's mistake gets its message, not a traceback."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Here, because torch sets a folder of its own as soon as it is imported
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(paths.COMPILED.resolve()))
    try:
        app()
    except SlamError as error:
        print(f"slam {' '.join(sys.argv[1:2])}: {error}", file=sys.stderr)
        sys.exit(error.code)


if __name__ == "__main__":
    main()
