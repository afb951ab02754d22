"""The commands of `slam` that are no stage: a finished model, and what training costs; `cli.py` has the stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from slam.errors import SlamError


def generate(
    prompt: Annotated[str, typer.Argument(help="what to draw")],
    steps: Annotated[int, typer.Option(min=1, max=50, help="1 to 4 is what a student is for")] = 4,
    out: Annotated[Path, typer.Option(help="the PNG to write; with --images, NAME-0.png, NAME-1.png, …")] = Path(
        "picture.png"
    ),
    model: Annotated[
        str | None, typer.Option(help="a diffusers folder or models:/slam/3; the champion by default")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="the same seed draws the same picture")] = 0,
    guidance: Annotated[
        float | None, typer.Option(min=1, help="for a student that is told it (lcm_w); others have learnt theirs")
    ] = None,
    height: Annotated[int | None, typer.Option(help="pixels; as the model was trained by default")] = None,
    width: Annotated[int | None, typer.Option(help="pixels; as the model was trained by default")] = None,
    images: Annotated[int, typer.Option(min=1, max=64, help="how many pictures")] = 1,
) -> None:
    """Draw pictures with the champion, or with `--model`."""
    from slam.evaluation.single import draw_pictures

    if model is None:
        from slam.registry.champion import champion_folder

        folder = champion_folder()
    else:
        folder = Path(local_folder(model))
    asked = {"steps": steps, "seed": seed, "guidance": guidance, "height": height, "width": width, "images": images}
    for path in draw_pictures(folder, prompt, out, **asked):
        print(path)


def promote(version: Annotated[str, typer.Argument(help="its number in MLflow, such as 3")]) -> None:
    """Let the gate, mlflow/promotion.yaml, judge a version; it becomes champion, or the command fails with the reason.

    It is held against the present champion, which becomes `previous`; a version that fails becomes `challenger`.
    Every rule's outcome is printed, and kept in MLflow.
    """
    from slam.registry.announce import PROMOTED, announce
    from slam.registry.promote import promote as decide

    decision = decide(version)
    for check in decision.checks:
        print(f"{'pass' if check.passed else 'FAIL'}  {check.says}")
    if decision.noticed:
        print(f"note  {decision.noticed}")
    if decision.alias != "champion":
        raise SlamError(f"version {version} is not promoted: {decision.reason}")
    before = f"version {decision.before}" if decision.before else "nobody"
    print(f"version {version} is champion; before, it was {before}")
    if decision.before != version and (unheard := announce(PROMOTED, version=version)):
        print(f"note  {unheard}")


def rollback(why: Annotated[str, typer.Option(help="the reason, for the record")] = "asked for") -> None:
    """Give `champion` back to `previous`, if that version still loads, draws and has the files that were measured."""
    from slam.registry.announce import ROLLED_BACK, announce
    from slam.registry.promote import rollback as go_back

    decision = go_back(why=why)
    print(f"version {decision.version} is champion again; it was version {decision.before}")
    if unheard := announce(ROLLED_BACK, **{"version": decision.version, "from": decision.before}):
        print(f"note  {unheard}")


def bench(
    model: Annotated[
        Literal["tiny", "sd15"], typer.Option(help="a profile of params.yaml; sd15 has random weights, no download")
    ] = "tiny",
    steps: Annotated[int, typer.Option(min=0, help="to measure; 0: what is counted from the code alone")] = 10,
    batch: Annotated[int | None, typer.Option(min=1, help="instead of train.batch; all of it on this device")] = None,
    micro_batch: Annotated[int | None, typer.Option(min=1, help="instead of train.micro_batch")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="instead of distill.k")] = None,
    precision: Annotated[Literal["fp32", "bf16"] | None, typer.Option(help="instead of train.precision")] = None,
    side: Annotated[int | None, typer.Option(min=8, help="of sd15's latents; 64 by default")] = None,
    switches: Annotated[bool, typer.Option(help="what each switch of train.speed gives")] = True,
    slow: Annotated[bool, typer.Option("--slow", help="torch.compile too: its first step takes minutes")] = False,
) -> None:
    """What a training step costs here: samples/s, FLOP/s, where the time goes, memory, and what each switch gives.

    sd15 at its full size needs 21 GB; on a CPU a step takes minutes: --batch 1 --side 16 --steps 1 --no-switches.
    """
    from slam.bench.report import bench as lines

    changes = {"batch": batch, "micro_batch": micro_batch, "k": k, "precision": precision, "processes": 1}
    for line in lines(model, steps, side, switches, slow, **changes):
        print(line, flush=True)


def local_folder(model: str) -> str:
    """`model`, or the folder of a version in MLflow's registry that models:/NAME@ALIAS names."""
    if not model.startswith("models:"):
        return model
    from slam.registry.champion import model_folder

    return str(model_folder(model))
