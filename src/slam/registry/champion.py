"""The champion's weights on this disk."""

from __future__ import annotations

from pathlib import Path

import mlflow

from slam.errors import SlamError
from slam.registry.record import tracking_uri
from slam.registry.track import NAME, connect


def champion_folder(root: Path = Path()) -> Path:
    """The champion's diffusers folder; fetched first if the artifacts are elsewhere. Raises `SlamError` without one."""
    advice = "run `make demo` to train and promote one, or pass --model DIR"
    uri = tracking_uri(root)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise SlamError(f"there is no champion: {uri} does not exist; {advice}")
    client = connect(root)
    try:
        version = client.get_model_version_by_alias(NAME, "champion").version
        stored = client.get_model_version_download_uri(NAME, version)
        return Path(mlflow.artifacts.download_artifacts(f"{stored}/artifacts/student"))
    except mlflow.exceptions.MlflowException as error:
        raise SlamError(f"there is no champion in {uri} ({error.message.splitlines()[0]}); {advice}") from None
