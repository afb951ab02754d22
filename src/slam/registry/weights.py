"""What can be said of a registered model's files before anybody measures: whole, safetensors, finite, drawing."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import mlflow
import pandas as pd
import torch
from mlflow.entities.model_registry import ModelVersion
from safetensors import SafetensorError, safe_open

from slam.files import sha256
from slam.registry.gate import Check
from slam.registry.track import NAME

CARD = "README.md"  # written when the model is registered: no part of what identifies it
LOADING = threading.Lock()  # diffusers patches torch while it loads: of two threads at once, one gets empty tensors
PICKLES = {".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth"}


def files_sha256(folder: Path) -> str:
    """Over the names and bytes of all files of a diffusers folder but its card."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / CARD)
    parts = [(path.relative_to(folder).as_posix(), sha256(path)) for path in files]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def check_files(folder: Path, registered: str | None) -> list[Check]:
    """Every file is what it was when the model was registered; weights are safetensors, and every number is finite."""
    pickles = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in PICKLES]
    weights = sorted(folder.rglob("*.safetensors"))
    broken = [told for path in weights if (told := _not_finite(path, folder))]
    found = files_sha256(folder)
    return [
        Check(
            "safetensors",
            bool(weights) and not pickles,
            f"weights may be pickles: {', '.join(pickles)}" if pickles else f"{len(weights)} safetensors, no pickle",
        ),
        Check("finite weights", not broken, "; ".join(broken) or "every weight is finite"),
        Check(
            "files as registered",
            found == registered,
            "every file has the sha256 that was registered"
            if found == registered
            else f"the files are not those that were measured: expected sha256 {registered}, found {found}",
        ),
    ]


def check_draws(version: ModelVersion) -> Check:
    """The registered model, loaded as a server would load it (plain diffusers), draws one picture."""
    try:
        with LOADING:
            model = mlflow.pyfunc.load_model(f"models:/{NAME}/{version.version}")
        model.predict(pd.DataFrame({"prompt": ["a picture"]}), params={"steps": 1})
    except Exception as error:  # whatever it is, it would also meet the user
        return Check("loads and draws", False, f"the registered model does not draw: {error}")
    return Check("loads and draws", True, "the registered model loads in diffusers and draws")


def _not_finite(path: Path, folder: Path) -> str | None:
    name = path.relative_to(folder).as_posix()
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118, not a dict
                tensor = file.get_tensor(key)
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    return f"{name}: {key} has values that are not finite"
    except (SafetensorError, OSError) as error:
        return f"{name} cannot be read: {error}"
    return None
