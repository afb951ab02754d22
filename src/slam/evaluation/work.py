"""Draws and looks at pictures, part by part, in this process or in several; what a killed run finished is kept.

A part is `evaluate.batch` pictures of a row. Only what was seen in them goes to the disk (8 KB a picture with
Inception): a picture can be drawn again from its number at any time, to the same bits.

`python -m slam.evaluation.work FILE` is one of several processes, started by `evaluate.processes`; under any launcher
that sets RANK, WORLD_SIZE and LOCAL_RANK.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from slam.config import Evaluate
from slam.errors import SlamError
from slam.evaluation import kept, provenance
from slam.evaluation.clip_score import load_clip
from slam.evaluation.features import load_features, square
from slam.evaluation.features import rows as to_rows
from slam.evaluation.generate import Drawn, clock, generate, paint
from slam.evaluation.observe import Instruments, Observations, join, observe
from slam.evaluation.provenance import weights_sha256
from slam.evaluation.reference import Reference, load_reference
from slam.evaluation.rows import Row
from slam.evaluation.subject import Subject
from slam.files import read_json, write_json
from slam.launch import accelerate_launch, sigterm_raises
from slam.models.diffusion import LatentDiffusion
from slam.models.judge import Judge
from slam.progress import batches, progress
from slam.protocols import Protocol, find

TASK = "task.json"


class Part(NamedTuple):
    row: Row
    start: int
    stop: int
    file: Path


def parts_of(row: Row, key: str, n: int, batch: int, folder: Path) -> list[Part]:
    cuts = [(start, min(start + batch, n)) for start in range(0, n, batch)]
    return [Part(row, *cut, folder / f"part-{key}-{cut[0]:06d}-{cut[1]:06d}.safetensors") for cut in cuts]


@dataclass(frozen=True)
class Studio:
    """What draws and looks, in one process; each network is loaded when it is first needed."""

    config: Evaluate
    subjects: Mapping[str, Subject]  # by the name that rows give them
    evaluation: Path
    device: str

    @property
    def protocol(self) -> Protocol:
        return find(self.config.protocol)

    @cached_property
    def reference(self) -> Reference:
        protocol = self.protocol
        return load_reference(self.evaluation, self.config.n, protocol.each, protocol.reference == "matched")

    @cached_property
    def instruments(self) -> Instruments:
        config = self.config
        network = load_features(config.features, self.device)
        if self.protocol.features == "inception" and not network.is_inception:
            raise SlamError(
                f"evaluate.features = {config.features!r}: protocol {config.protocol} needs the file of the Inception"
                " weights; for features of your own use the protocol `own`"
            )
        judge = Judge.load(config.judge).to(self.device) if config.judge else None
        return Instruments(network, load_clip(config.clip, self.device), self.protocol.clip_prefix, judge)

    @cached_property
    def models(self) -> dict[str, LatentDiffusion]:
        """By the name that rows give them; the VAE's own row is drawn by the teacher's. None is loaded twice."""
        once = {subject: subject.load(self.config.precision, self.device) for subject in set(self.subjects.values())}
        loaded = {name: once[subject] for name, subject in self.subjects.items()}
        return loaded | {"vae": loaded["teacher"]}

    @cached_property
    def weights(self) -> dict[str, str]:
        """sha256 of each model's weights."""
        once = {id(model): model for model in self.models.values()}
        hashes = {key: weights_sha256(model.unet, model.vae, model.text_encoder) for key, model in once.items()}
        return {name: hashes[id(model)] for name, model in self.models.items()}

    @cached_property
    def facts(self) -> dict:
        return provenance.facts(self.config, self.reference, self.instruments)

    def draw(self, row: Row, start: int, stop: int) -> Iterator[Drawn]:
        model = self.models[row.model]
        if row.sampler == "reconstruction":
            return reconstruct(model, self.reference, range(start, stop), self.protocol.block)
        return generate(
            model,
            self.reference.captions,
            sampler=row.sampler,
            steps=row.steps,
            guidance=row.guidance,
            seed=self.config.seed,
            batch=self.protocol.block,
            label=row.label,
            rows=range(start, stop),
            fill=True,
            quiet=True,
        )

    @torch.inference_mode()
    def pictures(self, row: Row, indices: Sequence[int]) -> np.ndarray:
        """The row's pictures of these numbers once more, uint8 [len(indices), H, W, 3]; no more than a block."""
        model, captions = self.models[row.model], self.reference.captions
        full = [*indices, *indices[-1:] * (self.protocol.block - len(indices))]
        texts, null = [captions[i] for i in full], model.embed([""])
        _, drawn, _ = paint(model, texts, full, null, row.sampler, row.steps, row.guidance, self.config.seed)
        return to_rows(drawn.cpu())[: len(indices)]

    def look(self, part: Part) -> Observations:
        drawn, captions = self.draw(part.row, part.start, part.stop), self.reference.captions
        return observe(drawn, captions, self.instruments, self.config.rows, self.protocol.block)


def make(parts: Sequence[Part], studio: Studio, label: str, quiet: bool = False) -> None:
    """Makes those of `parts` whose file is not there, under one bar that counts pictures."""
    total, missing = sum(part.stop - part.start for part in parts), [part for part in parts if not part.file.is_file()]
    left = sum(part.stop - part.start for part in missing)
    with progress(label=label, total=total, initial=total - left, disable=quiet or not missing) as bar:
        for part in missing:
            kept.write(part.file, {}, **studio.look(part)._asdict())
            bar.update(part.stop - part.start)


def make_in_processes(parts: Sequence[Part], studio: Studio, folder: Path) -> None:
    """As `make`, by `evaluate.processes` processes on this machine. Raises `SlamError` when one of them fails."""
    missing = [part for part in parts if not part.file.is_file()]
    if not missing:
        return
    task = {
        "config": studio.config.model_dump(),
        "subjects": studio.subjects,
        "evaluation": str(studio.evaluation),
        "parts": [[asdict(part.row), part.start, part.stop, str(part.file)] for part in missing],
    }
    write_json(folder / TASK, task)
    code = accelerate_launch(
        "slam.evaluation.work", [str(folder / TASK)], studio.config.processes, key="evaluate.processes"
    )
    if code:
        raise SlamError("drawing failed, as told above; the same command goes on from what is done", code)


def gather(parts: Sequence[Part]) -> Observations:
    """The row that its parts make."""
    return join([Observations(**kept.read(part.file)[1]) for part in parts])


def reconstruct(model: LatentDiffusion, reference: Reference, rows: range, block: int) -> Iterator[Drawn]:
    """The captioned reference pictures, encoded and decoded: what a perfect sampler of latents would draw."""
    device, dtype = model.vae.device, model.vae.dtype
    side = model.latent_shape[-1] * 2 ** (len(model.vae.config.block_out_channels) - 1)
    for part in batches(len(rows), block, "vae", quiet=True):
        own = rows[part]
        images = [i // reference.each for i in own]
        originals = np.stack([square(image, side) for image in reference.read(images)])
        originals = np.concatenate([originals, originals[-1:].repeat(block - len(own), 0)])
        with torch.inference_mode():
            pixels = torch.from_numpy(originals).permute(0, 3, 1, 2).to(device, dtype) / 127.5 - 1
            begin = clock(device)
            pictures = model.decode(model.encode(pixels))
            seconds = clock(device) - begin
        yield Drawn(slice(own.start, own.stop), pictures[: len(own)].cpu(), seconds * len(own) / block)


def main(file: str) -> None:
    """This process's share of the task in `file`."""
    rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    task = read_json(file, "slam evaluate")
    subjects = {name: Subject(*subject) for name, subject in task["subjects"].items()}
    studio = Studio(Evaluate.model_validate(task["config"]), subjects, Path(task["evaluation"]), device)
    parts = [Part(Row(**row), start, stop, Path(path)) for row, start, stop, path in task["parts"]]
    with sigterm_raises():
        make(parts[rank::count], studio, f"draw, 1 of {count}", quiet=rank > 0)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except SlamError as error:
        print(f"slam evaluate: {error}", file=sys.stderr)
        sys.exit(1)
