"""What was registered last from this folder, kept on disk: "is it up to date?" needs no MLflow for its answer."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slam import paths
from slam.errors import SlamError
from slam.files import read_json, sha256, write_json


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, as `make up` writes it to .env, or the SQLite file in `root`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.absolute() / 'mlflow.db'}"


def fingerprint(root: Path) -> str:
    """sha256 over the student's files and the metrics: the same for the same student, measured the same."""
    student, metrics = root / paths.STUDENT, root / paths.METRICS
    if not (student / "model_index.json").is_file():
        raise SlamError(f"{student} holds no student: run `slam select` first")
    if not metrics.is_file():
        raise SlamError(f"{metrics} does not exist: run `slam evaluate` first")
    files = sorted(path for path in student.rglob("*") if path.is_file())
    parts = [(path.relative_to(student).as_posix(), sha256(path)) for path in files]
    return hashlib.sha256(json.dumps([*parts, ("metrics", sha256(metrics))]).encode()).hexdigest()


def remember(root: Path, version: str, alias: str) -> None:
    write_json(root / paths.REGISTRATION, {**_now(root), "version": version, "alias": alias})


def registration(root: Path) -> dict | None:
    """{"version", "alias", …} if this very student is registered and was judged by this very gate; None otherwise."""
    if not all((root / path).exists() for path in (paths.REGISTRATION, paths.STUDENT, paths.METRICS)):
        return None
    record = read_json(root / paths.REGISTRATION, "make demo")
    if not (root / "mlflow.db").exists() and tracking_uri(root).startswith("sqlite:"):
        return None
    return record if _now(root).items() <= record.items() else None


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """One registration or promotion at a time in this folder; the others wait."""
    path = root / ".slam" / "registry.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _now(root: Path) -> dict[str, str]:
    return {
        "fingerprint": fingerprint(root),
        "gate": sha256(root / paths.GATE),
        "tracking_uri": tracking_uri(root),
    }
