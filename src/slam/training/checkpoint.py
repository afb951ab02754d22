"""Checkpoints: visible only whole, verified before use, safetensors and JSON alone.

checkpoints/step-000060/
    manifest.json            step, fingerprint of the plan, number of processes, held-out loss if it was asked for,
                             bytes and sha256 of each file, and a sha256 of all that
    ema.safetensors          the target network theta^-: the parameters that are trained, diffusers' names
    ema-0.99.safetensors     the average of another decay, one file for each of `train.emas`
    student.safetensors      the network that is trained    }
    optimizer.safetensors    AdamW's moments and step       } in the newest checkpoints only;
    scaler.safetensors       of fp16: the loss scale        } `thin` takes them from the older ones

Every process holds the same state (DDP), and what differs between them, draws and data, is a function of
(seed, step): rank 0 writes for all, there is no part of a rank's own to lose.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from slam.errors import SlamError
from slam.files import read_json, remove, sha256, verify, whole_folder, write_json
from slam.models.student import fill
from slam.training.state import State

RESUMABLE = 2  # newest checkpoints that a run can go on from, whatever `train.keep` says
EMA, STUDENT, OPTIMIZER, SCALER = (f"{name}.safetensors" for name in ("ema", "student", "optimizer", "scaler"))
KEYS = {"step", "fingerprint", "processes", "held_out_loss", "files", "sha256"}  # of a manifest
RESUME_ONLY = (STUDENT, OPTIMIZER, SCALER)

Files = dict[str, dict[str, Tensor]]  # name of a file to its tensors


def snapshot(state: State) -> Files:
    """A copy of the state in the host's memory, file by file: training may go on while it is written."""
    files = {EMA: state.target, STUDENT: state.student, OPTIMIZER: _pack(state.optimizer)}
    files |= {average_file(decay): average for decay, average in state.averages.items()}
    if state.scaler:
        files[SCALER] = state.scaler._asdict()
    return {file: {name: _copy(value) for name, value in tensors.items()} for file, tensors in files.items()}


def write(
    folder: Path, step: int, fingerprint: str, processes: int, files: Files, held_out_loss: float | None = None
) -> Path:
    """Write the state after `step` optimizer steps; the folder appears when all of it is on the disk."""
    path = folder / f"step-{step:06d}"
    with whole_folder(path) as partial:
        for name, tensors in files.items():
            try:
                save_file(tensors, partial / name)
            except SafetensorError as error:  # which is what it makes of a full disk
                raise OSError(f"{partial / name}: {error}") from None
        entries = {name: _entry(partial / name) for name in files}
        manifest = {"step": step, "fingerprint": fingerprint, "processes": processes}
        manifest |= {"held_out_loss": held_out_loss, "files": entries}
        (partial / "manifest.json").write_text(json.dumps(_sealed(manifest), indent=2) + "\n")
    return path


def save(folder: Path, step: int, fingerprint: str, state: State, processes: int = 1) -> Path:
    return write(folder, step, fingerprint, processes, snapshot(state))


def average_file(decay: float) -> str:
    return f"ema-{decay}.safetensors"


def average_files(path: Path) -> list[str]:
    """Of a checkpoint: the target network, then the average of each further decay."""
    return [EMA, *sorted(name for name in read_manifest(path)["files"] if name.startswith("ema-"))]


def folders(root: Path) -> list[Path]:
    """Oldest first: whatever has a checkpoint's name, whole or not."""
    named = [path for path in root.glob("step-*") if re.fullmatch(r"step-\d{6,}", path.name)]
    return sorted(named, key=number)


def number(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return [path for path in folders(folder) if (path / "manifest.json").exists()]


def set_aside(path: Path) -> Path:
    """Move a damaged checkpoint out of the way of those to come; returns where it is then."""
    aside = path.parent / "damaged" / path.name
    aside.parent.mkdir(exist_ok=True)
    if os.path.lexists(aside):
        remove(aside)
    path.replace(aside)
    return aside


def newest_whole(folder: Path, report=print, fingerprint: str | None = None) -> Path | None:
    """The newest checkpoint to go on from whose every file has its recorded sha256, of the plan with that fingerprint
    if one is given; says which ones it passes over."""
    for path in reversed(folders(folder)):
        try:
            manifest = read_manifest(path)
            if EMA not in manifest["files"]:
                raise SlamError(f"{path}: its manifest names no {EMA}")
            if fingerprint not in (None, manifest["fingerprint"]):
                raise SlamError(f"{path}: it is a checkpoint of another configuration")
            if STUDENT not in manifest["files"]:
                continue
            for name, entry in manifest["files"].items():
                verify(path / name, entry["sha256"], "slam train")
            return path
        except (SlamError, OSError, LookupError, TypeError, ValueError) as error:  # a forged one may hold anything
            told = error if isinstance(error, SlamError) else f"{path}: it holds no manifest of ours ({error!r})"
            report(f"{told}. Passing over this checkpoint")
    return None


def restore(path: Path, state: State) -> int:
    """Load a verified checkpoint into the state; returns its step. Raises `SlamError` when it is another network's."""
    fill(state.student, load_file(path / STUDENT))
    fill(state.target, load_file(path / EMA))
    for decay, average in state.averages.items():
        fill(average, load_file(path / average_file(decay)))
    if state.scaler:
        fill(state.scaler._asdict(), load_file(path / SCALER))
    _unpack(state.optimizer, load_file(path / OPTIMIZER))
    return read_manifest(path)["step"]


def thin(folder: Path, keep: int, keep_best: int = 0) -> None:
    """Keep the averages of the newest `keep` checkpoints and of the `keep_best` of least held-out loss, and all of the
    newest `RESUMABLE`. What a kill left behind goes too.

    A damaged one is left as it is while it is one of the newest.
    """
    paths = checkpoints(folder)
    losses = {path: loss for path in paths if (loss := _held_out_loss(path)) is not None}
    kept = {*paths[-max(keep, RESUMABLE) :], *sorted(losses, key=losses.get)[:keep_best]}
    for path in [path for path in folders(folder) if number(path) < number(paths[-1]) and path not in kept]:
        if path.is_dir() and not path.is_symlink():
            (path / "manifest.json").unlink(missing_ok=True)  # first: without it the rest is no checkpoint
            shutil.rmtree(path)
    for path in kept - {*paths[-RESUMABLE:]}:
        with suppress(SlamError):
            manifest = read_manifest(path)
            files = {name: entry for name, entry in manifest["files"].items() if name not in RESUME_ONLY}
            if files != manifest["files"]:
                write_json(path / "manifest.json", _sealed({**manifest, "files": files}))
            for name in RESUME_ONLY:
                (path / name).unlink(missing_ok=True)


def _held_out_loss(path: Path) -> float | None:
    with suppress(SlamError):
        return read_manifest(path)["held_out_loss"]
    return None


def read_manifest(path: Path) -> dict:
    """Raises `SlamError` unless it is as it was written, and of the folder it lies in."""
    file = path / "manifest.json"
    try:
        manifest = read_json(file, "slam train")
    except (OSError, RecursionError) as error:
        raise SlamError(f"{file} cannot be read ({error}): remove {path} and run `slam train` again") from None
    if not isinstance(manifest, dict) or set(manifest) != KEYS or manifest != _sealed(manifest):
        raise SlamError(f"{file} changed on disk: remove {path} and run `slam train` again")
    if path.name != f"step-{manifest['step']:06}":
        raise SlamError(f"{file}: it is the manifest of step {manifest['step']}: the folder was renamed")
    return manifest


def _sealed(manifest: dict) -> dict:
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return {**content, "sha256": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def _entry(path: Path) -> dict:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def _copy(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())


def _pack(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def _unpack(optimizer: torch.optim.Optimizer, packed: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in packed.items():
        index, name = key.split(".", 1)
        # The fused AdamW walks parameter and moment by address alone: their strides must be the same.
        like = parameters[int(index)] if value.ndim else value
        state.setdefault(int(index), {})[name] = torch.empty_like(like, device=value.device).copy_(value)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
