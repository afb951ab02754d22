"""What DVC knows: the order of the stages, and which of them are stale."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from slam.errors import SlamError


def names(root: Path = Path()) -> list[str]:
    """The stages of dvc.yaml in `root`, each after those that it reads from; not those of the study, which follow."""
    with opened(root) as repo:
        graph = repo.index.graph  # its edges run from a stage to what it needs
        own = [stage for stage in graph if stage.path == str(root.absolute() / "dvc.yaml")]
        needs = {stage.addressing: sorted(need.addressing for need in graph.successors(stage)) for stage in own}
    return list(TopologicalSorter(needs).static_order())


def stale(root: Path = Path()) -> list[str]:
    """The stages that `dvc repro` would run."""
    with opened(root) as repo:
        return list(repo.status(targets=["dvc.yaml"]))


@contextmanager
def opened(root: Path) -> Iterator[Repo]:
    """The DVC repository at `root`. What DVC has to say against it or its dvc.yaml is raised as a `SlamError`."""
    try:
        with Repo(str(root)) as repo:
            yield repo
    except DvcException as error:
        raise SlamError(f"DVC: {error}; `dvc status` says more") from None
