"""Registered weights on this disk."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from slam.errors import SlamError
from slam.files import whole_folder
from slam.registry.aliases import existing, resolve
from slam.registry.server import NoAnswerError
from slam.registry.track import NAME

FETCHED = Path(".slam/models")  # of a server elsewhere, one folder a version
ADVICE = "run `make demo` to train and promote one, or pass --model DIR"


def champion_folder(root: Path = Path()) -> Path:
    """The champion's diffusers folder. Raises `SlamError` without one."""
    try:
        return model_folder(f"models:/{NAME}@champion", root)
    except NoAnswerError:
        raise  # nobody knows whether there is one
    except SlamError as error:
        raise SlamError(f"there is no champion: {error}; {ADVICE}") from None


def model_folder(uri: str, root: Path = Path()) -> Path:
    """The diffusers folder of `models:/slam@ALIAS` or `models:/slam/VERSION`; fetched once if it is stored elsewhere.

    Raises `SlamError` if there is no such version or its files are gone.
    """
    client = existing(root)
    return folder(client, resolve(client, uri), root)


def folder(client: MlflowClient, version: ModelVersion, root: Path) -> Path:
    """The diffusers folder of `version`. Raises `SlamError` if its files cannot be had."""
    try:
        stored = f"{client.get_model_version_download_uri(NAME, version.version)}/artifacts/student"
        local = mlflow.artifacts.download_artifacts(stored) if stored.startswith(("file:", "/")) else None
        if local:
            return Path(local)
        kept = root / FETCHED / f"{version.version}-{version.creation_timestamp}"
        if not kept.is_dir():
            with whole_folder(kept) as partial:
                mlflow.artifacts.download_artifacts(stored, dst_path=str(partial))
        return kept / "student"
    except (MlflowException, OSError) as error:
        raise SlamError(
            f"version {version.version} of {NAME}: its files cannot be read ({str(error).splitlines()[0]}); "
            "expected what `slam register` stored under artifacts/student"
        ) from None
