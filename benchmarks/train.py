"""`slam train`'s step against a plain loop of the same mathematics, as public training scripts have it.

    python -m benchmarks.train [--rounds 5] [--steps 10] [--compile]

The plain loop, on the same pictures and captions, with the same draws: pictures are read and put through the VAE, and
captions through tokenizer and text encoder, in the loop; two passes of the teacher, with and without the prompt;
contiguous convolutions; AdamW, clipping and averages in loops over the tensors; the loss waited for, and logged to
MLflow (SQLite), in each step. It runs in float32, and under autocast to bfloat16, as public scripts usually do.
Ours has its journal (that MLflow is fed from it in the background, `benchmarks.feed` measures): as `train.speed` is by
default, with teacher and target in bfloat16, and with all three networks so; with --compile by `torch.compile` too.
Losses are compared step by step first; then the trainings take turns, so that what else the machine does falls on all.
Target: at least twice the samples/s of the plain loop in float32.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mlflow
import numpy as np
import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from slam.bench.rate import machine
from slam.bench.subject import Subject, start
from slam.bench.turns import Spent, Worker, in_turn
from slam.config import load as load_profile
from slam.core.distance import huber
from slam.core.schedule import Schedule
from slam.data import shapes
from slam.data.latents import batch_indices
from slam.files import sha256, write_json
from slam.models.diffusion import LatentDiffusion, load
from slam.models.predictor import schedule_of
from slam.training.batches import global_draw
from slam.training.journal import Journal
from slam.training.meter import Meter, lines
from slam.training.objective import autocast
from slam.training.plan import Plan
from slam.training.state import ema_gap

PICTURES, TARGET = 512, 2.0


class PlainTraining:
    """SLAD at k = 20, time-matched, linear sigma, huber: the profile tiny's, written out in one place."""

    def __init__(self, plan: Plan, model: LatentDiffusion, pictures: list[bytes], captions: list[str]) -> None:
        self.plan, self.pictures, self.captions = plan, pictures, captions
        self.autocast = autocast(plan.train.precision, "cpu")
        self.vae, self.text = model.vae.to(memory_format=torch.contiguous_format), model.text_encoder
        self.tokenizer = model.tokenizer
        self.teacher = model.unet.to(memory_format=torch.contiguous_format)
        self.student = copy.deepcopy(self.teacher).train().requires_grad_(True)
        self.target = copy.deepcopy(self.teacher)
        self.schedule: Schedule = schedule_of(model.scheduler, plan.teacher)
        with torch.no_grad():
            self.empty = self.embed([""] * plan.train.batch)
        self.optimizer = torch.optim.AdamW(
            self.student.parameters(), plan.train.lr, weight_decay=0.0, foreach=False, fused=False
        )

    def embed(self, captions: list[str]) -> Tensor:
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids
        return self.text(tokens)[0]

    def step(self, number: int) -> float:
        config, distill, schedule = self.plan.train, self.plan.distill, self.schedule
        rows = batch_indices(len(self.pictures), config.batch, config.seed, number)
        images = [np.asarray(Image.open(io.BytesIO(self.pictures[row])).convert("RGB")) for row in rows]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            z_0 = self.vae.encode(pixels).latent_dist.mean * self.vae.config.scaling_factor
            prompt = self.embed([self.captions[row] for row in rows])
            draw = global_draw(self.plan, tuple(z_0.shape[1:]), schedule.T, number)
            t, s = draw.ladder
            alpha_t, sigma_t, alpha_s, sigma_s = (f(x) for x in (t, s) for f in (schedule.alpha, schedule.sigma))
            z_t = alpha_t * z_0 + sigma_t * draw.noise
            with_prompt = self.predict(self.teacher, z_t, t, prompt)
            without = self.predict(self.teacher, z_t, t, self.empty)
            eps = without + draw.w.view(-1, 1, 1, 1) * (with_prompt - without)
            z_s = alpha_s * (z_t - sigma_t * eps) / alpha_t + sigma_s * eps
            goal = self.at_0(self.target, z_s, alpha_s, sigma_s, s, prompt)
            gamma = draw.gamma.view(-1, 1, 1, 1)
            z = (1 - gamma) * alpha_t / alpha_s * z_s + gamma * z_t
            sigma = (1 - gamma) * alpha_t / alpha_s * sigma_s + gamma * sigma_t
            tau = torch.where(draw.gamma == 1, t.float(), schedule.time((sigma / alpha_t).flatten()))
            scale = torch.where(gamma == 1, 1.0, (alpha_t**2 + sigma**2).rsqrt())
        answer = self.at_0(self.student, z * scale, alpha_t * scale, sigma * scale, tau, prompt)
        loss = huber(answer, goal, distill.huber_c).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), config.clip, foreach=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for average, value in zip(self.target.parameters(), self.student.parameters(), strict=True):
                average.mul_(distill.mu).add_(value, alpha=1 - distill.mu)
        return loss.item()

    def predict(self, unet: UNet2DConditionModel, z: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
        with self.autocast():
            return unet(z, t, encoder_hidden_states=prompt).sample.float()

    def at_0(self, unet, z: Tensor, alpha: Tensor, sigma: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
        scaled = 10.0 * t.view(-1, 1, 1, 1)
        skip, out = 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25) ** 0.5
        eps = self.predict(unet, z, t, prompt)
        return skip * z + out * (z - sigma * eps) / alpha


def encoded(model: LatentDiffusion, drawn: shapes.Pictures, folder: Path) -> None:
    """The pictures as the stage `encode` leaves them."""
    pixels = torch.from_numpy(np.stack(drawn.images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = torch.cat([model.encode(part) for part in pixels.split(64)]).half().contiguous()
    file = folder / "train-00000.safetensors"
    save_file({"latents": latents, "input_ids": model.tokenize(drawn.captions).int()}, file)
    shard = {"file": file.name, "split": "train", "count": PICTURES, "sha256": sha256(file)}
    write_json(folder / "index.json", {"shards": [shard]})


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@contextlib.contextmanager
def plain_training(plan: Plan, drawn: shapes.Pictures, folder: Path) -> Iterator[Callable[[int], float]]:
    training = PlainTraining(plan, load(plan.teacher), [png(image) for image in drawn.images], drawn.captions)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/{plan.train.precision}.db")

    def step(number: int) -> float:
        loss = training.step(number)
        mlflow.log_metrics({"loss": loss, "lr": plan.train.lr}, step=number)
        return loss

    with mlflow.start_run():
        yield step


@contextlib.contextmanager
def our_training(subject: Subject) -> Iterator[Callable[[int], Tensor]]:
    """The step, its numbers gathered and written as the loop of `slam train` does."""
    config, accelerator = subject.plan.train, Accelerator(cpu=True)
    run, meter = start(subject, accelerator), Meter(config.batch)

    def step(number: int) -> Tensor:
        values = run.step(number)
        meter.add(values)
        if (number + 1) % config.log_every == 0:
            journal.write(lines(meter.read(accelerator, number + 1), {"ema_gap": ema_gap(run.state).item()}, config))
        return values[0]

    with tempfile.TemporaryDirectory() as folder, contextlib.closing(run.batches):
        journal = Journal(Path(folder) / "journal.jsonl", 0)
        yield step
        journal.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of each form in a round")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    profile = load_profile(profile="tiny")
    train = profile.train.model_copy(update={"decay": "constant"})
    drawn = shapes.draw(PICTURES, 0)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        encoded(load(profile.teacher, ("vae", "tokenizer")), drawn, folder)
        subject = Subject(Plan(profile.teacher, str(folder), profile.distill, train, "drawn", "tiny"), None)
        low = subject.with_train(precision="bf16")
        forms = {
            "plain": Worker(plain_training, subject.plan, drawn, folder),
            "plain, bf16": Worker(plain_training, low.plan, drawn, folder),
            "default": Worker(our_training, subject),
            "frozen bf16": Worker(our_training, subject.with_speed(frozen="bf16")),
            "bf16": Worker(our_training, low.with_speed(frozen="bf16")),
        }
        if args.compile:
            forms["compiled"] = Worker(our_training, subject.with_speed(compile=True))
            forms["bf16, compiled"] = Worker(our_training, low.with_speed(frozen="bf16", compile=True))
        for worker in forms.values():
            stack.enter_context(worker)
        print(f"tiny, batch {train.batch}, {machine(torch.device('cpu'))}")
        for number, losses in enumerate(zip(*(worker.losses for worker in forms.values()), strict=True), 1):
            print(f"step {number}, loss: " + ", ".join(f"{n} {v:.6f}" for n, v in zip(forms, losses, strict=True)))
        seconds = list(zip(*in_turn(list(forms.values()), args.rounds, args.steps), strict=True))
    for name, found in zip(forms, seconds, strict=True):
        rate = train.batch * args.steps / statistics.median(spent.wall for spent in found)
        print(f"{name:15s} {rate:7.1f} samples/s" + ("" if name == "plain" else told(name, seconds[0], found)))


def told(name: str, plain: Sequence[Spent], found: Sequence[Spent]) -> str:
    wall, own = ([before[i] / after[i] for before, after in zip(plain, found, strict=True)] for i in (0, 1))
    verdict = f"; target {TARGET:.0f}x " + ("reached" if statistics.median(wall) >= TARGET else "MISSED")
    return (
        f"  {statistics.median(wall):.2f}x plain ({min(wall):.2f} to {max(wall):.2f}; by processor time "
        f"{statistics.median(own):.2f})" + ("" if name.startswith("plain") else verdict)
    )


if __name__ == "__main__":
    main()
