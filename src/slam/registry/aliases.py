"""What the names of the registry stand for now."""

from __future__ import annotations

import re
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from slam import paths
from slam.errors import SlamError
from slam.registry.gate import Records
from slam.registry.record import tracking_uri
from slam.registry.track import NAME, connect

URI = re.compile(rf"models:/{NAME}(?:@(?P<alias>[\w.-]+)|/(?P<version>\d+))")


def existing(root: Path) -> MlflowClient:
    """As `connect`, where something was registered before: raises `SlamError` instead of making a database."""
    uri = tracking_uri(root)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise SlamError(f"{uri} does not exist: nothing was registered here; `make demo` registers a student")
    return connect(root)


def version_of(uri: str, root: Path = Path()) -> str:
    """The number of the version that `uri`, models:/slam@ALIAS or models:/slam/VERSION, names now.

    Raises `SlamError` when it names none.
    """
    return str(resolve(existing(root), uri).version)


def champion_version(root: Path = Path()) -> str | None:
    """The version that has the alias champion, if one has."""
    return holders(connect(root)).get("champion")


def registered_records(version: str, root: Path = Path()) -> Records:
    """The records of the evaluation that `version` was registered with. Raises `SlamError` if there are none."""
    client = existing(root)
    return records(client, find(client, version))


def resolve(client: MlflowClient, uri: str) -> ModelVersion:
    named = URI.fullmatch(uri)
    if not named:
        raise SlamError(f"{uri}: expected models:/{NAME}@ALIAS or models:/{NAME}/VERSION")
    if named["version"]:
        return find(client, named["version"])
    aliases = holders(client)
    if named["alias"] not in aliases:
        there = ", ".join(f"@{alias} (version {number})" for alias, number in sorted(aliases.items()))
        raise SlamError(f"{uri} does not exist: there is {there or 'no alias'}")
    return find(client, aliases[named["alias"]])


def find(client: MlflowClient, version: str) -> ModelVersion:
    """The version of this number. Raises `SlamError` with those that there are."""
    known = {str(item.version): item for item in client.search_model_versions(f"name = '{NAME}'")}
    if version not in known:
        there = ", ".join(sorted(known, key=int)) or "none"
        raise SlamError(f"version {version} of {NAME} does not exist: there are {there}")
    return known[version]


def holders(client: MlflowClient) -> dict[str, str]:
    """{"champion": "3", …}; {} before anything is registered."""
    try:
        aliases = client.get_registered_model(NAME).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {alias: str(version) for alias, version in aliases.items()}


def records(client: MlflowClient, version: ModelVersion) -> Records:
    """As `registered_records`."""
    found, reason = None, "it has no run"
    if version.run_id:
        try:
            uri = client.get_run(version.run_id).info.artifact_uri
            found, reason = mlflow.artifacts.load_dict(f"{uri}/{paths.METRICS.name}"), f"{paths.METRICS.name} is empty"
        except (MlflowException, OSError) as error:
            reason = str(error).splitlines()[0]
    if not found:
        raise SlamError(
            f"version {version.version} of {NAME} was registered without an evaluation ({reason}): register a student "
            "that `slam evaluate` has measured"
        )
    return found
