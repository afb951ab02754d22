"""What an evaluation has finished, kept beside its report: a killed one goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from slam.files import whole_file


def write(file: Path, record: dict, **arrays: np.ndarray) -> None:
    """One safetensors file: the arrays, and the record as JSON in its header. Whole or absent."""
    with whole_file(file) as partial:
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(contiguous, partial, {"record": json.dumps(record)})


def read(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with safe_open(file, "numpy") as stored:
        names = stored.keys()
        return json.loads(stored.metadata()["record"]), {name: stored.get_tensor(name) for name in names}
