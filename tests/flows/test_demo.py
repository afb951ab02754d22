"""What `make demo` runs, with Prefect's temporary server, on a stage that copies what was made before."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slam import paths
from tests.flows.conftest import CODE, REPOSITORY
from tests.registry.conftest import empty_database, finished  # noqa: F401

pytestmark = pytest.mark.slow

STAGES = """
stages:
  evaluate:
    cmd: mkdir -p models reports; cp -r ready/student models/; cp ready/reports/* reports/
    deps: [ready]
    outs:
    - models/student
    - reports/metrics.json: {cache: false}
    - reports/table.md: {cache: false}
"""


def demo(root: Path, **variables: str) -> subprocess.CompletedProcess:
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return subprocess.run(
        [sys.executable, "-m", "flows.demo"],
        cwd=root,
        env={**outer, "PYTHONPATH": CODE, **variables},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def ready(finished, project) -> Path:  # noqa: F811
    """A project whose one stage copies a finished student and its evaluation into place."""
    (finished / "ready").mkdir()
    shutil.move(finished / paths.STUDENT, finished / "ready/student")
    shutil.move(finished / "reports", finished / "ready/reports")
    (finished / "ready/reports/table.md").write_text("| a table |\n")
    shutil.copy(REPOSITORY / "docs/samples.png", finished / "ready/reports")
    (finished / "dvc.lock").unlink()
    (finished / "dvc.yaml").write_text(STAGES)
    shutil.copy(REPOSITORY / "prefect.toml", finished)
    return finished


def test_it_builds_registers_promotes_and_the_second_time_only_says_so(ready):
    first = demo(ready)
    assert first.returncode == 0, first.stderr
    assert "slam version 1, alias champion" in first.stdout
    assert "student" in first.stdout and "DPM-Solver++" in first.stdout
    second = demo(ready)
    assert second.returncode == 0, second.stderr
    assert second.stdout.startswith("Everything is up to date.\n\n")
    assert "Starting Prefect" not in second.stdout  # which is what takes its time
    assert first.stdout.endswith(second.stdout.removeprefix("Everything is up to date.\n\n"))


def test_a_failed_stage_ends_it_with_the_stages_words_and_no_traceback(ready):
    (ready / "dvc.yaml").write_text("stages: {evaluate: {cmd: 'echo what was expected; exit 5', outs: [x]}}")
    result = demo(ready)
    assert result.returncode == 1
    assert result.stderr.endswith("\nstage evaluate failed\nwhat was expected\n")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("variable", ["PREFECT_API_URL", "MLFLOW_TRACKING_URI"])
def test_a_server_that_is_gone_is_named_before_any_stage_runs(ready, variable):
    result = demo(ready, **{variable: "http://127.0.0.1:9"})
    assert result.returncode == 1
    assert f"{variable} = http://127.0.0.1:9 does not answer" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (ready / paths.METRICS).exists()
