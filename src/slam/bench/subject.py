"""What is measured: the training step of a profile, on random latents, with nothing left out of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor

from slam.config import load as load_profile
from slam.data.latents import Latents
from slam.files import sha256, write_json
from slam.models.architecture import random_model, token_ids
from slam.models.diffusion import LatentDiffusion, load
from slam.training.batches import prepared
from slam.training.contexts import encoded
from slam.training.meter import lr_at
from slam.training.objective import make_objective
from slam.training.plan import Plan
from slam.training.quick import quick_step
from slam.training.state import State, first_state
from slam.training.step import Batch, train_step

PARTS = ("text_encoder", "tokenizer", "unet", "scheduler")
ARCHITECTURES = ("sd15",)  # drawn at random; any other profile's teacher is loaded
SAMPLES = 64  # at least, of random latents


class Subject(NamedTuple):
    plan: Plan
    side: int | None  # of the latents; the teacher's own if None

    @property
    def drawn(self) -> bool:
        """Whether the model is of random weights."""
        return self.plan.teacher in ARCHITECTURES

    def model(self, device: str | torch.device) -> LatentDiffusion:
        if self.drawn:
            return random_model(self.plan.teacher, device, self.side)
        return load(self.plan.teacher, PARTS, device=str(device))

    @property
    def samples(self) -> int:
        return max(SAMPLES, self.plan.train.batch)

    def with_train(self, **train: object) -> Subject:
        chosen = type(self.plan.train)(**{**self.plan.train.model_dump(), **train})
        return self._replace(plan=self.plan._replace(train=chosen))

    def with_speed(self, **speed: object) -> Subject:
        return self.with_train(speed={**self.plan.train.speed.model_dump(), **speed})


def make_subject(name: str, folder: Path, side: int | None = None, **changes: object) -> Subject:
    """The profile `name` of params.yaml, with `changes` of `distill` and `train`, and random latents in `folder`.

    `sd15` is Stable Diffusion's architecture with random weights, so that nothing has to be fetched.
    """
    profile = load_profile(profile=name)
    sections = {}
    for section in ("distill", "train"):
        model = getattr(profile, section)
        own = {key: value for key, value in changes.items() if key in type(model).model_fields and value is not None}
        sections[section] = type(model)(**{**model.model_dump(), **own})
    teacher = name if name in ARCHITECTURES else profile.teacher
    subject = Subject(Plan(teacher, str(folder), **sections, data="random", network=teacher), side)
    if subject.drawn:
        subject = subject.with_speed(text_cache=0)  # its captions would be millions, not SAMPLES
    _draw(subject, folder)
    return subject


def _draw(subject: Subject, folder: Path) -> None:
    """Random latents and token ids, as the stage `encode` leaves them."""
    generator = torch.Generator().manual_seed(0)
    model = subject.model("meta" if subject.drawn else "cpu")
    count = subject.samples
    latents = torch.randn(count, *model.latent_shape, generator=generator).half()
    file = folder / "train-00000.safetensors"
    save_file({"latents": latents, "input_ids": token_ids(model, count, generator).int()}, file)
    shard = {"file": file.name, "split": "train", "count": count, "sha256": sha256(file)}
    write_json(folder / "index.json", {"shards": [shard]})


class Run(NamedTuple):
    """A training that is under way."""

    subject: Subject
    state: State
    batches: Iterator[list[Batch]]
    take: Callable[[list[Batch]], Tensor]
    device: torch.device

    def step(self, number: int) -> Tensor:
        """What the loop does for step `number`, without its journal and checkpoints."""
        micro_batches = [batch.to(self.device) for batch in next(self.batches)]
        for group in self.state.optimizer.param_groups:
            group["lr"] = lr_at(self.subject.plan.train, number)
        return self.take(micro_batches)


def start(subject: Subject, accelerator: Accelerator, watched: Callable = lambda *networks: networks) -> Run:
    """As the loop starts a training; `watched` may replace the objective, the student, the target and the optimizer."""
    plan, config = subject.plan, subject.plan.train
    model = subject.model(accelerator.device)
    objective, network = make_objective(plan, model)
    target = copy.deepcopy(network).requires_grad_(False).eval()
    state = first_state(config, network.unet, target.unet)
    if config.checkpointing:
        network.unet.enable_gradient_checkpointing()
    student = accelerator.prepare(network)
    objective, student, target, _ = watched(objective, student, target, state.optimizer)
    take = quick_step(train_step, config, objective, accelerator, student, target, state)
    data = encoded(Latents(Path(plan.latents), "train"), objective.embed, objective.null, config.speed.text_cache)
    batches = prepared(plan, data, model.latent_shape, objective.schedule.T, range(10**9), 0, 1)
    return Run(subject, state, batches, take, accelerator.device)
