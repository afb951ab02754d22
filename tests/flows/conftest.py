"""A throw-away DVC project of trivial stages, and one Prefect server for all tests of flows."""

import os
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CODE = f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}"  # for a child's PYTHONPATH
STAGES = """
stages:
  last:
    cmd: cat b.txt > c.txt
    deps: [b.txt]
    outs: [c.txt]
  middle:
    cmd: echo "middle is sure"; cat a.txt > b.txt; {middle}
    deps: [a.txt]
    outs: [b.txt]
  start:
    cmd: for i in 1 2 3; do echo "line $i of 3"; sleep 0.3; done; echo one > a.txt
    outs: [a.txt]
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A function that writes the project, with an ending for its middle stage, into the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    shutil.copy(REPOSITORY / ".dvc/config", tmp_path / ".dvc/config")
    # DVC wants a git repository or this line
    with (tmp_path / ".dvc/config").open("a") as config:
        config.write("    no_scm = true\n")
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)

    def write(middle: str = "true") -> Path:
        (tmp_path / "dvc.yaml").write_text(STAGES.format(middle=middle))
        return tmp_path

    return write


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory):
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        yield
