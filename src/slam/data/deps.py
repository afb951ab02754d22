"""Whether DVC sees the files of the user's own that a stage reads: it cannot read their names in params.yaml."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import yaml

from slam.config import Filter
from slam.errors import SlamError


def own_files(config: Filter) -> list[str]:
    """The files and the folder that `filter` names."""
    return [*config.removal, *(name for name in (config.decontaminate, config.expectations) if name)]


def require_deps(files: Iterable[str]) -> None:
    """In a stage that DVC runs: raises `SlamError` for one of `files` that its `deps` do not hold.

    DVC would not see it change, and say that the stage is up to date.
    """
    stage, root = os.environ.get("DVC_STAGE"), Path(os.environ.get("DVC_ROOT", "."))
    if not stage or not (root / "dvc.yaml").is_file():
        return
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    names = [next(iter(dep)) if isinstance(dep, dict) else dep for dep in stages.get(stage, {}).get("deps", ())]
    deps = {(root / name).resolve() for name in names}
    for file in files:
        path = Path(file).resolve()
        if stage in stages and not deps & {path, *path.parents}:
            raise SlamError(
                f"{file}: expected under `deps` of the stage {stage} in dvc.yaml, found it nowhere there: DVC "
                "would not see it change; add it, or its folder"
            )
