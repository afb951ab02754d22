"""The stage `evaluate`: the teacher, training-free samplers and the student, on the same captions and noise; and
`evaluate_model`, any other model under the same protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from slam import paths
from slam.config import Evaluate
from slam.errors import SlamError
from slam.evaluation import kept, provenance
from slam.evaluation.metrics import Target, scores
from slam.evaluation.observe import Observations, pictures_sha256
from slam.evaluation.pages import Done, write_pages
from slam.evaluation.rows import Row, distilled, table_rows
from slam.evaluation.subject import Subject, is_distilled, rows_of
from slam.evaluation.work import Part, Studio, gather, make, make_in_processes, parts_of
from slam.files import locked
from slam.progress import batches
from slam.protocols import digest

WORST = 8  # prompts that a record names
TIMING = (
    "median over passes of one block of pictures, the first pass of a part of the row left out when there are more;"
    " sampler and decoder, not the text encoder, not the disk"
)


def evaluate_stage(
    config: Evaluate,
    teacher: str,
    student: Path,
    evaluation: Path,
    reports: Path,
    champion: Path | None = None,
) -> dict:
    """Writes `metrics.json` (one record a row), `table.md`, `samples.png`, `worst.png` and `tradeoff.png` to `reports`.

    A finished row is kept there under a hash of all that it depends on, and so are the parts of an unfinished one: a
    killed evaluation goes on from there, and with a new student only the student's rows are drawn again. `champion`
    is a student to stand beside it.
    """
    if not student.is_dir():
        raise SlamError(f"{student} does not exist: run `slam select` first")
    subjects = {"teacher": Subject(teacher), "student": Subject(str(student))}
    subjects |= {"champion": Subject(str(champion))} if champion else {}

    def rows(models: Mapping) -> list[Row]:
        guidance = config.guidance if models["student"].told_w else 1.0
        return table_rows(config, guidance, beside(config, models) if champion else ())

    with studio_at(config, subjects, evaluation, reports / paths.DRAWN) as studio:
        done = run(studio, rows, reports / paths.DRAWN, reports / paths.DRAWN)
        write_pages(done, studio, reports)
        files = {row_file(studio, one.row, reports / paths.DRAWN) for one in done}
        for old in set((reports / paths.DRAWN).glob("row-*")) - files:
            old.unlink()
    first = done[0].record
    return {"rows": len(done), "samples": first["n"], "protocol": config.protocol, "hash": first["protocol_hash"]}


def evaluate_model(
    config: Evaluate,
    model: Path | str,
    evaluation: Path,
    out: Path,
    base: str | None = None,
    cache: Path | None = None,
    champion: Path | None = None,
    name: str | None = None,
) -> list[dict]:
    """Measures one model under `config`'s protocol: writes `metrics.json`, `table.md`, `samples.png`, `worst.png` and
    `tradeoff.png` to `out`, and returns the records.

    `model` is a diffusers folder, a hub id, or a folder of LoRA adapters on `base`. One whose scheduler is LCM's is
    drawn with at config.steps, and its records say model = student; any other as the teacher is, and they say teacher.
    `cache` is where the features of the reference are kept, `out` by default; `champion` is a student to stand beside
    it; `name` is what the records call it. The same call again goes on from what a killed one did. Raises `SlamError`
    when it is no such model; `out` is then as it was.
    """
    subjects = dict.fromkeys(("student", "teacher"), Subject(str(model), base, name))
    subjects |= {"champion": Subject(str(champion))} if champion else {}

    def rows(models: Mapping) -> list[Row]:
        own = rows_of(config, "student" if is_distilled(models["student"]) else "teacher", models["student"])
        return own + (beside(config, models) if champion else [])

    with studio_at(config, subjects, evaluation, out / paths.DRAWN) as studio:
        done = run(studio, rows, out / paths.DRAWN, cache or out / paths.DRAWN)
        write_pages(done, studio, out)
    return [one.record for one in done]


def beside(config: Evaluate, models: Mapping) -> list[Row]:
    return distilled(config, "champion", config.guidance if models["champion"].told_w else 1.0)


@contextmanager
def studio_at(config: Evaluate, subjects: Mapping[str, Subject], evaluation: Path, folder: Path):
    """What draws and looks here; one evaluation at a time in `folder`, which is made when all else is well."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    studio = Studio(config, subjects, evaluation, device)
    studio.reference, studio.instruments, studio.models  # noqa: B018  what is wrong is told before anything is written
    with locked(folder / "lock", f"`slam evaluate` is at work in {folder}"):
        yield studio


def run(studio: Studio, rows: Callable[[Mapping], list[Row]], folder: Path, cache: Path) -> list[Done]:
    """Every row's record and first pictures, drawn where `folder` does not have them yet."""
    config, todo = studio.config, []
    rows = rows(studio.models)
    target = Target(reference_features(studio, cache))
    for row in rows:
        file = row_file(studio, row, folder)
        if not file.is_file():
            todo.append((row, file, parts_of(row, file.stem.removeprefix("row-"), config.n, config.batch, folder)))
    if config.processes > 1:
        make_in_processes([part for _, _, parts in todo for part in parts], studio, folder)
    for row, file, parts in todo:
        make(parts, studio, row.label)
        finish(row, file, parts, studio, target)
    done = []
    for row in rows:
        record, arrays = kept.read(row_file(studio, row, folder))
        subject = studio.subjects["teacher" if row.model == "vae" else row.model]
        done.append(Done(row, record | {"name": subject.asked or subject.name}, arrays["pictures"]))
    return done


def finish(row: Row, file: Path, parts: list[Part], studio: Studio, target: Target) -> None:
    """From the parts of a row to its record; the parts go."""
    seen = gather(parts)
    kept.write(file, record_of(row, seen, studio, target), pictures=seen.shown)
    for part in file.parent.glob(f"part-{file.stem.removeprefix('row-')}-*"):
        part.unlink()


def record_of(row: Row, seen: Observations, studio: Studio, target: Target) -> dict:
    config, protocol = studio.config, studio.protocol
    facts = studio.facts
    threads = max(1, torch.get_num_threads() // config.processes)  # as accelerate_launch gives them
    timing = {"block": protocol.block, "processes": config.processes, "threads": threads}
    return {
        **asdict(row),
        **scores(seen, target, config.judge is not None, protocol.each),
        "n": facts["n"],
        "seed": config.seed,
        "protocol": protocol.name,
        "protocol_version": protocol.version,
        "protocol_hash": protocol.hash(facts),
        "model_sha256": studio.weights[row.model],
        "pictures_sha256": pictures_sha256(seen),
        "worst": worst(seen.cosines, studio.reference.captions),
        "timing": timing | {"method": TIMING},
        "inputs": facts | provenance.machine(),
    }


def worst(cosines: np.ndarray, captions: Sequence[str]) -> list[dict]:
    """The WORST captions by the CLIP score of their worst picture, each once, the worst first."""
    first: dict[str, int] = {}
    for index in np.argsort(cosines, kind="stable"):
        first.setdefault(captions[index], int(index))
    found = list(first.items())[:WORST]
    return [{"index": i, "caption": caption, "clip_score": 100 * float(cosines[i])} for caption, i in found]


def row_file(studio: Studio, row: Row, folder: Path) -> Path:
    """Where a finished row is kept: under a hash of all that its numbers and pictures depend on."""
    what = [asdict(row), studio.weights[row.model], studio.protocol.hash(studio.facts), studio.config.rows]
    return folder / f"row-{digest([*what, provenance.machine()])}.safetensors"


def reference_features(studio: Studio, cache: Path) -> np.ndarray:
    """Of every reference picture, float32 [M, F]."""
    facts, images = studio.facts, studio.reference.images
    network, block = studio.instruments.network, studio.protocol.block
    file = cache / f"reference-{digest([facts['reference_sha256'], facts['features_sha256'], block])}.safetensors"
    if not file.is_file():
        found = []
        for part in batches(len(images), block, "reference"):
            pictures = list(studio.reference.read(range(part.start, part.stop)))
            full = pictures + pictures[-1:] * (block - len(pictures))
            found.append(network(full)[: len(pictures)])
        kept.write(file, {"pictures": len(images)}, features=np.concatenate(found))
    return kept.read(file)[1]["features"]
