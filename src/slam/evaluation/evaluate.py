"""The stage `evaluate`: the teacher, training-free samplers and the student, on the same captions and noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from slam.config import Evaluate
from slam.errors import SlamError
from slam.evaluation import kept, picture, report
from slam.evaluation.clip_score import load_clip
from slam.evaluation.features import FeatureNetwork, load_features, square
from slam.evaluation.frechet import Moments, moments
from slam.evaluation.generate import Drawn, clock, generate
from slam.evaluation.metrics import Instruments, measure
from slam.evaluation.protocol import Protocol, digest, weights_sha256
from slam.evaluation.reference import Reference, load_reference
from slam.files import write_json
from slam.models.diffusion import LatentDiffusion, load
from slam.models.judge import Judge
from slam.models.precision import PRECISIONS
from slam.progress import batches


@dataclass(frozen=True)
class Row:
    """One line of the table. steps = 0: the reference pictures through the VAE, which bounds every sampler on it."""

    model: str  # vae, teacher, student
    sampler: str
    steps: int
    guidance: float

    @property
    def label(self) -> str:
        return f"{self.model} {self.sampler} {self.steps or ''}".rstrip()


def table_rows(config: Evaluate, student_guidance: float = 1.0) -> list[Row]:
    """The VAE, the teacher, each training-free sampler and the student at each step count; no row twice."""
    rows = [Row("vae", "reconstruction", 0, 1.0), Row("teacher", "ddim", config.teacher_steps, config.guidance)]
    rows += [Row("teacher", name, steps, config.guidance) for name in config.samplers for steps in config.steps]
    rows += [Row("student", "lcm", steps, student_guidance) for steps in config.steps]
    return list(dict.fromkeys(rows))


def evaluate_stage(
    config: Evaluate, teacher: str, student: Path, evaluation: Path, metrics: Path, samples: Path, table: Path
) -> dict:
    """Writes `metrics` (JSON, one record a row), `samples` (PNG) and `table` (Markdown).

    A finished row is kept beside `metrics` under a hash of all that it depends on: a killed evaluation goes on from
    there, and with a new student only the student's rows are drawn again.
    """
    if not student.is_dir():
        raise SlamError(f"{student} does not exist: run `slam select` first")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reference = load_reference(evaluation, config.samples)
    finished = metrics.parent / ".evaluation"
    instruments, protocol = prepare(config, reference, finished, device)
    models = {
        "teacher": load(teacher, dtype=PRECISIONS[config.precision], device=device),
        "student": load(student, dtype=PRECISIONS[config.precision], device=device),
    }
    models["vae"] = models["teacher"]
    weights = {name: weights_sha256(model.unet, model.vae, model.text_encoder) for name, model in models.items()}

    done = {}
    # A student that is told w is told the teacher's; the others have learnt theirs.
    for row in table_rows(config, config.guidance if models["student"].told_w else 1.0):
        what = [asdict(row), weights[row.model], protocol.hash, config.batch, config.rows, device]
        file = finished / f"row-{digest([*what, torch.__version__, version('diffusers')])}.safetensors"
        if not file.is_file():
            drawn = drawing(row, models[row.model], reference, config)
            measured, pictures = measure(drawn, instruments, config.rows)
            record = asdict(row) | measured | {"n": config.samples, "seed": config.seed, "protocol": config.protocol}
            record |= {"protocol_hash": protocol.hash, "model_sha256": weights[row.model]}
            kept.write(file, record, pictures=pictures)
        done[file] = kept.read(file)

    records = [record for record, _ in done.values()]
    write_json(metrics, records)
    report.write_table(records, table)
    drawings = [(record, arrays["pictures"]) for record, arrays in done.values() if record["model"] != "vae"]
    picture.write_samples(drawings, reference.captions[: config.rows], samples)
    for old in set(finished.glob("row-*")) - set(done):
        old.unlink()
    return {"rows": len(records), "samples": config.samples, "protocol": config.protocol, "hash": protocol.hash}


def prepare(config: Evaluate, reference: Reference, finished: Path, device: str) -> tuple[Instruments, Protocol]:
    network = load_features(config.features, device)
    clip = load_clip(config.clip, device)
    judge = Judge.load(config.judge) if config.judge else None
    protocol = Protocol(
        name=config.protocol,
        n=config.samples,
        seed=config.seed,
        precision=config.precision,
        reference=reference.sha256(),
        features=network.sha256,
        resolution=network.resolution,
        clip=weights_sha256(clip.model),
        clip_prefix=config.clip_prefix,
        judge=judge and weights_sha256(judge),
    )
    texts = clip.texts([config.clip_prefix + caption for caption in reference.captions])
    of_reference = reference_moments(network, reference, protocol, finished, config.batch)
    return Instruments(network, of_reference, clip, texts, judge, reference.captions), protocol


def reference_moments(
    network: FeatureNetwork, reference: Reference, protocol: Protocol, finished: Path, batch: int
) -> Moments:
    """Of the features of every reference picture."""
    file = finished / f"reference-{digest([protocol.reference, protocol.features, protocol.version])}.safetensors"
    if not file.is_file():
        parts = batches(len(reference.images), batch, "reference")
        found = moments(np.concatenate([network(reference.pictures(part.start, part.stop)) for part in parts]))
        kept.write(file, {"pictures": len(reference.images)}, **found._asdict())
    return Moments(**kept.read(file)[1])


def drawing(row: Row, model: LatentDiffusion, reference: Reference, config: Evaluate) -> Iterator[Drawn]:
    if row.model == "vae":
        return reconstruct(model, reference, config)
    return generate(
        model,
        reference.captions,
        sampler=row.sampler,
        steps=row.steps,
        guidance=row.guidance,
        seed=config.seed,
        batch=config.batch,
        label=row.label,
    )


def reconstruct(model: LatentDiffusion, reference: Reference, config: Evaluate) -> Iterator[Drawn]:
    """The captioned reference pictures, encoded and decoded: what a perfect sampler of latents would draw."""
    device, dtype = model.vae.device, model.vae.dtype
    side = model.latent_shape[-1] * 2 ** (len(model.vae.config.block_out_channels) - 1)
    for rows in batches(len(reference.captions), config.batch, "vae reconstruction"):
        originals = np.stack([square(image, side) for image in reference.pictures(rows.start, rows.stop)])
        with torch.inference_mode():
            pixels = torch.from_numpy(originals).permute(0, 3, 1, 2).to(device, dtype) / 127.5 - 1
            begin = clock(device)
            pictures = model.decode(model.encode(pixels))
            seconds = clock(device) - begin
        yield Drawn(rows, pictures.cpu(), seconds)
