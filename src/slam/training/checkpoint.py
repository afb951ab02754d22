"""Checkpoints: visible only whole, verified before use, safetensors and JSON alone.

checkpoints/step-000060/
    manifest.json            step, fingerprint of the plan, and bytes and sha256 of each file
    ema.safetensors          the target network theta^-: the parameters that are trained, diffusers' names
    student.safetensors      the network that is trained    } in the newest checkpoints only;
    optimizer.safetensors    AdamW's moments and step       } `thin` takes them from the older ones
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slam.errors import SlamError
from slam.files import read_json, sha256, verify, whole_folder, write_json
from slam.models.student import load_weights, trained

RESUMABLE = 2  # newest checkpoints that a run can go on from
RESUME_ONLY = ("student.safetensors", "optimizer.safetensors")


def save(
    folder: Path, step: int, fingerprint: str, student: nn.Module, target: nn.Module, optimizer: torch.optim.Optimizer
) -> Path:
    """Write the state after `step` optimizer steps; the folder appears when all of it is on the disk."""
    path = folder / f"step-{step:06d}"
    own = trained(student)
    average = dict(target.named_parameters())
    tensors = {
        "ema.safetensors": {name: average[name] for name in own},
        "student.safetensors": own,
        "optimizer.safetensors": _pack(optimizer),
    }
    with whole_folder(path) as partial:
        for name, values in tensors.items():
            save_file({key: value.detach().contiguous().cpu() for key, value in values.items()}, partial / name)
        manifest = {
            "step": step,
            "fingerprint": fingerprint,
            "files": {name: _entry(partial / name) for name in tensors},
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "manifest.json").exists())


def newest_whole(folder: Path, report=print) -> Path | None:
    """The newest checkpoint to go on from whose every file has its recorded sha256; says which ones it passes over."""
    for path in reversed(checkpoints(folder)):
        files = read_manifest(path)["files"]
        if not all(name in files for name in RESUME_ONLY):
            continue
        try:
            for name, entry in files.items():
                verify(path / name, entry["sha256"], "slam train")
            return path
        except SlamError as error:
            report(f"{error}. Passing over this checkpoint")
    return None


def restore(path: Path, student: nn.Module, target: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load a verified checkpoint into the three; returns its step."""
    load_weights(student, load_file(path / "student.safetensors"), trained(student))
    load_weights(target, load_file(path / "ema.safetensors"), trained(student))
    _unpack(optimizer, load_file(path / "optimizer.safetensors"))
    return read_manifest(path)["step"]


def thin(folder: Path, keep: int) -> None:
    """Keep the EMA of the newest `keep` checkpoints, and what resuming needs of the newest `RESUMABLE`."""
    paths = checkpoints(folder)
    for path in paths[:-keep]:
        for file in sorted(path.iterdir(), key=lambda file: file.name != "manifest.json"):
            file.unlink()  # the manifest first: without it the rest is no checkpoint
        path.rmdir()
    for path in paths[-keep:-RESUMABLE]:
        manifest = read_manifest(path)
        kept = {name: entry for name, entry in manifest["files"].items() if name not in RESUME_ONLY}
        if kept != manifest["files"]:
            write_json(path / "manifest.json", {**manifest, "files": kept})
        for name in RESUME_ONLY:
            (path / name).unlink(missing_ok=True)


def read_manifest(path: Path) -> dict:
    return read_json(path / "manifest.json", "slam train")


def _entry(path: Path) -> dict:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


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
