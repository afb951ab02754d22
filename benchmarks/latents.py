"""How fast latents of Stable Diffusion's size are read for training, and what that is of a training step.

    python -m benchmarks.latents [--folder DIR] [--shards 6]

Writes shards of 8,192 random latents (fp16, 4x64x64, 256 MiB each), reads them once into the page cache, then reads
batches in the order of an epoch: by `Latents.gather`, and by PyTorch's own DataLoader over a Dataset of the same
mapped files, which is what a plain training script has. Each reader runs in a process of its own, for its peak of
resident memory; mapped pages of the page cache count in it, so what is beyond them is told too. Target: 2 GB/s.

Where other programs keep the cores busy, the rate by the clock says little: the rate by the process's own processor
seconds, of which one reader has one core's, is told beside it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset

from slam.config import load as load_profile
from slam.data.latents import Latents, _permutation, batch_indices, identity
from slam.files import sha256, write_json

SHAPE, TOKENS, SHARD = (4, 64, 64), 77, 8192
BYTES = 2 * int(np.prod(SHAPE)) + 4 * TOKENS  # of a sample as stored
ROUNDS, TARGET = 5, 2.0
SAMPLES = 8192  # read in a round
READERS = ("slam", "DataLoader")
AHEAD_OF = 12_000_000  # samples of LAION-Aesthetics-6+


def make(
    folder: Path, shards: int, shape: tuple[int, ...], tokens: int, count: int, teacher: str | None = None
) -> None:
    """Random latents as the stage `encode` leaves them."""
    entries = []
    for number in range(shards):
        file = folder / f"train-{number:05d}.safetensors"
        generator = torch.Generator().manual_seed(number)
        latents = torch.randn(count, *shape, generator=generator, dtype=torch.float32).half()
        ids = torch.randint(0, 40, (count, tokens), generator=generator, dtype=torch.int32)
        save_file({"latents": latents, "input_ids": ids}, file)
        entries.append({"file": file.name, "split": "train", "count": count, "sha256": sha256(file)})
    parts = {part: identity(teacher, part) for part in ("vae", "tokenizer")} if teacher else {}
    write_json(folder / "index.json", {**parts, "shards": entries})


class Plain(Dataset):
    """A sample at a time from mapped shards, as most training scripts have it."""

    def __init__(self, folder: Path) -> None:
        self.shards = []
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as shard:
                self.shards.append((shard.get_tensor("latents"), shard.get_tensor("input_ids")))

    def __getitem__(self, index: int):
        latents, input_ids = self.shards[index // SHARD]
        return latents[index % SHARD].float(), input_ids[index % SHARD].long()

    def __len__(self) -> int:
        return SHARD * len(self.shards)


def reader(kind: str, folder: Path, batch: int) -> Callable[[int], float]:
    """A function of the round that reads SAMPLES samples, and returns a sum so that all of it is used."""
    data, plain = Latents(folder, "train"), Plain(folder)
    steps = SAMPLES // batch

    def order(turn: int) -> list[np.ndarray]:
        return [batch_indices(len(data), batch, 0, turn * steps + step) for step in range(steps)]

    def slam(turn: int) -> float:
        return sum(float(data.gather(indices)[0][-1, 0, 0, 0]) for indices in order(turn))

    def loader(turn: int) -> float:
        batches = DataLoader(plain, batch_sampler=[list(map(int, indices)) for indices in order(turn)])
        return sum(float(latents[-1, 0, 0, 0]) for latents, _ in batches)

    return {"slam": slam, "DataLoader": loader}[kind]


def measure(kind: str, folder: Path, batch: int) -> dict:
    read = reader(kind, folder, batch)
    for turn in range(-(-SHARD * len(list(folder.glob("*.safetensors"))) // SAMPLES)):
        read(turn)  # a whole epoch: every page is mapped, as it is for all of a training but its beginning
    wall, own = [], []
    for again in range(1, ROUNDS + 1):
        start = time.perf_counter(), time.process_time()
        read(turn + again)
        wall.append(SAMPLES * BYTES / 1e9 / (time.perf_counter() - start[0]))
        own.append(SAMPLES * BYTES / 1e9 / (time.process_time() - start[1]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    mapped = int(Path("/proc/self/status").read_text().split("RssFile:")[1].split()[0]) * 1024
    return {"wall": wall, "own": own, "peak": peak, "mapped": mapped}


def read_fast(folder: Path) -> None:
    print(f"reading {SAMPLES} samples of {BYTES} bytes a round, {ROUNDS} rounds, GB/s of stored bytes", flush=True)
    for batch in (1024, 64):
        medians = {}
        for kind in READERS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (kind, folder, batch))
            medians[kind] = statistics.median(found["own"])
            spread = f"{min(found['own']):.2f} to {max(found['own']):.2f}"
            memory = f"peak RSS {found['peak'] / 2**30:.2f} GiB, of it {found['mapped'] / 2**30:.2f} GiB mapped files"
            print(
                f"batch {batch:5d}  {kind:11s} median {statistics.median(found['wall']):6.2f} by the clock, "
                f"{medians[kind]:6.2f} a processor second ({spread})  {memory}",
                flush=True,
            )
        verdict = "reached" if medians["slam"] >= TARGET else "MISSED"
        print(f"batch {batch:5d}  target {TARGET} GB/s {verdict}; {medians['slam'] / medians['DataLoader']:.1f} times")


def permutation() -> None:
    seconds = []
    for epoch in range(ROUNDS):
        start = time.process_time()
        _permutation(AHEAD_OF, 0, epoch)
        seconds.append(time.process_time() - start)
    start = time.process_time()
    for step in range(100):
        batch_indices(AHEAD_OF, 1024, 0, (ROUNDS - 1) * (AHEAD_OF // 1024) + 100 + step)
    each = (time.process_time() - start) / 100
    print(
        f"permutation of {AHEAD_OF:,}: median {statistics.median(seconds):.2f} processor seconds an epoch, "
        f"{8 * AHEAD_OF / 2**20:.0f} MiB; then {1e6 * each:.0f} us a batch of 1024",
        flush=True,
    )


def share_of_a_step(folder: Path) -> None:
    """Of the profile tiny, on random latents: a batch and its draw, made when asked and made ahead."""
    from slam.training.batches import global_draw, local_batches, prepared
    from slam.training.loop import train
    from slam.training.plan import make_plan

    profile, steps = load_profile(profile="tiny"), 10
    make(folder / "latents", 2, (4, 8, 8), 16, 2048, profile.teacher)
    changes = {"steps": steps, "checkpoint_every": steps, "log_every": steps, "decay": "constant"}
    profile = profile.model_copy(update={"train": profile.train.model_copy(update=changes)})
    plan, data = make_plan(profile, folder / "latents"), Latents(folder / "latents", "train")
    (folder / "run").mkdir()
    plan.write(folder / "run")
    start = time.process_time(), time.perf_counter()
    train(folder / "run")
    own, wall = (
        (now - then) / steps for now, then in zip((time.process_time(), time.perf_counter()), start, strict=True)
    )
    asked = []
    for number in range(200):
        start = time.process_time()
        local_batches(plan, data, global_draw(plan, (4, 8, 8), 1000, number), number, 0, 1)
        asked.append(time.process_time() - start)
    waited = []
    with closing(prepared(plan, data, (4, 8, 8), 1000, range(20), 0, 1)) as batches:
        for _ in range(20):
            start = time.perf_counter()
            next(batches)
            waited.append(time.perf_counter() - start)
            time.sleep(wall)
    made, wait = statistics.median(asked), statistics.median(waited)
    print(
        f"tiny, batch {plan.train.batch}, of {steps} steps with loading: a step takes {1e3 * own:.0f} ms of processor "
        f"time, {1e3 * wall:.0f} by the clock; its batch is made in {1e3 * made:.2f} ms of processor time "
        f"({made / own:.2%}), and is waited for {1e3 * wait:.3f} ms by the clock ({wait / wall:.3%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--shards", type=int, default=6)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        big, small = Path(place) / "sd", Path(place) / "tiny"
        for folder in (big, small / "latents"):
            folder.mkdir(parents=True)
        make(big, args.shards, SHAPE, TOKENS, SHARD)
        print(f"{args.shards} shards, {args.shards * SHARD * BYTES / 2**30:.1f} GiB; {torch.get_num_threads()} threads")
        for again in ("first", "second"):
            start = time.perf_counter()
            Latents(big, "train")
            print(f"{again} opening, with sha256: {time.perf_counter() - start:.2f} s")
        read_fast(big)
        permutation()
        share_of_a_step(small)


if __name__ == "__main__":
    main()
