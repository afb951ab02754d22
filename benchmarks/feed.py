"""What feeding MLflow costs the training that it is beside: less than 1% is asked, whatever the server does.

    python -m benchmarks.feed [--steps 150] [--rounds 3]

Trains the tiny profile on random latents, in turn without a feed, with the SQLite file of a fresh checkout, with a
server that is down and with one that accepts and never answers; each round in another order. The rate is that of the
steps after the first WARM, by the journal's clock. The feed runs at the lowest priority, so where other programs keep
the cores busy the rates say little; its own processor seconds are told too, most of them MLflow's import, and what
share they are of those that the run had on all cores.
Training is `slam.training.loop` in a child process, as `slam train` starts it.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil

from benchmarks.latents import make
from slam import launch
from slam.config import Profile
from slam.config import load as load_profile
from slam.registry.feed import feeding
from slam.teacher.tokenizer import LENGTH
from slam.training.journal import read_journal
from slam.training.plan import make_plan

KINDS = ("none", "sqlite", "down", "hanging")
WARM = 30  # steps: the first of a run, and the imports of the feed beside them


@contextmanager
def tracking(kind: str) -> Iterator[None]:
    """MLFLOW_TRACKING_URI for `kind`."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "hanging":
            listener.listen(64)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if kind in ("down", "hanging"):
            os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield


def measure(kind: str, profile: Profile, latents: Path, root: Path) -> tuple[float, float, float]:
    """(samples/s, processor seconds of the feed, their share of all cores' from the first line of the journal on)."""
    folder = root / "run"
    folder.mkdir(parents=True)
    make_plan(profile, latents).write(folder)
    used = 0.0
    with tracking(kind), nullcontext() if kind == "none" else feeding(folder, root):
        feed = next((p for p in psutil.Process().children() if "slam.registry.feed" in p.cmdline()), None)
        if launch.accelerate_launch("slam.training.loop", [str(folder)]):
            raise SystemExit("training failed")
        if feed:
            used = sum(feed.cpu_times()[:2])
    lines = read_journal(folder / "journal.jsonl")
    seconds = lines[-1]["time"] - lines[WARM - 1]["time"]
    whole = lines[-1]["time"] - lines[0]["time"]
    return profile.train.batch * (len(lines) - WARM) / seconds, used, used / whole / launch.cores()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if asked.steps <= WARM:
        parser.error(f"--steps: expected more than {WARM}, whose time is not counted, found {asked.steps}")
    tiny = load_profile(profile="tiny")
    changes = {"steps": asked.steps, "checkpoint_every": asked.steps, "decay": "constant", "log_every": 10}
    profile = tiny.model_copy(update={"train": tiny.train.model_copy(update=changes)})
    launch.GRACE = 5.0
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    costs: dict[str, list[float]] = {kind: [] for kind in KINDS}
    shares: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as place:
        latents = Path(place) / "latents"
        latents.mkdir()
        make(latents, 1, (4, 8, 8), LENGTH, 2048, tiny.teacher)
        for turn in range(asked.rounds):
            for kind in KINDS[turn % len(KINDS) :] + KINDS[: turn % len(KINDS)]:
                found = measure(kind, profile, latents, Path(place) / f"{kind}-{turn}")
                for table, value in zip((rates, costs, shares), found, strict=True):
                    table[kind].append(value)
    base = statistics.median(rates["none"])
    print(f"\n{launch.cores()} cores, tiny profile, {asked.steps} steps, median of {asked.rounds} rounds")
    print("| MLflow | samples/s | against none | spread | the feed's processor seconds | of all |")
    print("|---|---:|---:|---:|---:|---:|")
    for kind in KINDS:
        rate = statistics.median(rates[kind])
        spread = (max(rates[kind]) - min(rates[kind])) / rate
        cost, share = (statistics.median(table[kind]) for table in (costs, shares))
        print(f"| {kind} | {rate:.1f} | {rate / base - 1:+.2%} | {spread:.1%} | {cost:.1f} | {share:.2%} |")


if __name__ == "__main__":
    main()
