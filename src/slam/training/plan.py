"""What a run is: everything that decides its numbers, written beside its checkpoints."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from slam.config import Distill, Profile, Train
from slam.config_speed import COARSE
from slam.data.latents import identity
from slam.errors import SlamError
from slam.files import read_json, sha256, write_json

# These may change between two parts of one run: they leave its numbers alone, or only let it go on for longer
# (`steps`, unless the learning rate is to fall to 0 there).
FREE = {"steps", "checkpoint_every", "keep", "keep_best", "log_every", "pictures_every", "processes", "micro_batch"}
FREE |= {"checkpointing", "skips", "speed", "grace"}
# Keys younger than runs that are on disk. At their default they change nothing, and so are no part of what a run is.
YOUNGER = ("emas",)


class Plan(NamedTuple):
    teacher: str
    latents: str  # folder
    distill: Distill
    train: Train
    data: str  # sha256 of the latents' index
    network: str  # sha256 of the teacher's U-Net, or its hub id

    @property
    def identity(self) -> dict:
        """What must not change when a run goes on."""
        free = FREE if self.train.decay == "constant" else FREE - {"steps"}
        free = free | {key for key in YOUNGER if getattr(self.train, key) == Train.model_fields[key].default}
        train = self.train.model_dump(exclude=free)
        coarse = self.train.speed.model_dump(include=COARSE, exclude_defaults=True)
        return {
            "distill": self.distill.model_dump(),
            "train": {**train, "speed": coarse} if coarse else train,
            "data": self.data,
            "network": self.network,
        }

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        values = {**self._asdict(), "distill": self.distill.model_dump(), "train": self.train.model_dump()}
        write_json(folder / "plan.json", {**values, "fingerprint": self.fingerprint})


def make_plan(profile: Profile, latents: Path) -> Plan:
    """Raises `SlamError` when the latents are of another VAE or tokenizer than the teacher's."""
    index = read_json(latents / "index.json", "slam encode")
    for part in ("vae", "tokenizer"):
        if index[part] != identity(profile.teacher, part):
            raise SlamError(
                f"{latents} was encoded with the {part} of {index[part]['name']}, "
                f"which is not that of the teacher {profile.teacher}: run `slam encode` again"
            )
    network = identity(profile.teacher, "unet")["sha256"] or profile.teacher
    return Plan(profile.teacher, str(latents), profile.distill, profile.train, sha256(latents / "index.json"), network)


def read_plan(folder: Path) -> Plan:
    values = read_json(folder / "plan.json", "slam train")
    values.pop("fingerprint")
    return Plan(**{**values, "distill": Distill(**values["distill"]), "train": Train(**values["train"])})


def check_unchanged(folder: Path, plan: Plan) -> None:
    """Raises `SlamError` with the difference when `folder` holds a run of another plan that has trained something."""
    if not (folder / "plan.json").exists() or not any(folder.glob("checkpoints/step-*")):
        return
    before, now = _flat(read_plan(folder).identity), _flat(plan.identity)
    keys = [*before, *(key for key in now if key not in before)]
    changes = [f"  {key}: {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]
    if changes:
        raise SlamError(
            f"{folder} holds a run with another configuration:\n" + "\n".join(changes) + "\n"
            "Change it back to go on with that run, or start afresh with `slam train --restart` "
            f"(the old run is moved to {folder}.previous)"
        )


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
