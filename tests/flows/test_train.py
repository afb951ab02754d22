"""The flow for real: Prefect, DVC and child processes, on a project of trivial stages."""

import logging
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL

from flows import graph, stages
from flows.stages import own_words
from flows.train import chosen_profile, slam_train
from slam.errors import SlamError
from tests.flows.conftest import REPOSITORY

pytestmark = pytest.mark.slow


@flow
def build_all():
    for name in graph.names():
        stages.build(name)


@pytest.fixture
def heard(caplog):
    """(time, task run, line) of what the stages said."""

    def read() -> list[tuple[float, str, str]]:
        return [(r.created, r.task_run_name, r.getMessage()) for r in caplog.records if hasattr(r, "task_run_name")]

    with caplog.at_level(logging.INFO, "prefect.task_runs"):
        yield read


def test_every_stage_is_built_in_order_and_its_lines_are_streamed(project, prefect_server, heard):
    root = project()
    build_all()
    assert (root / "c.txt").read_text() == "one\n"
    assert graph.stale(root) == []
    lines = [line for _, _, line in heard()]
    assert lines.index("line 3 of 3") < lines.index("middle is sure") < lines.index("> cat b.txt > c.txt")
    assert not [line for line in lines if "git add" in line]  # DVC's advice is not for a log
    times = {line: when for when, _, line in heard()}
    assert times["line 3 of 3"] - times["line 1 of 3"] > 0.4  # as they were written, not at the end


def test_a_second_run_builds_nothing(project, prefect_server, heard):
    project()
    build_all()
    before = len(heard())
    build_all()
    again = [line for _, _, line in heard()[before:]]
    assert "Stage 'start' didn't change, skipping" in again
    assert not [line for line in again if line.startswith("> ")]


def test_a_failed_stage_fails_the_flow_with_its_own_words(project, prefect_server, heard):
    root = project(middle="echo 'expected 3, found 2; draw more' >&2; exit 7")
    with pytest.raises(SlamError, match="^stage middle failed\nmiddle is sure\nexpected 3, found 2; draw more$"):
        slam_train()
    assert not (root / "c.txt").exists()
    state = slam_train(return_state=True)
    assert state.is_failed()
    assert "expected 3, found 2; draw more" in state.message


def test_a_broken_dvc_yaml_fails_with_dvcs_message(project, prefect_server):
    (project() / "dvc.yaml").write_text("stages: [")
    with pytest.raises(SlamError, match="DVC: .*dvc.yaml"):
        slam_train()


def test_a_mistake_is_logged_without_a_traceback(project, prefect_server, caplog):
    project(middle="exit 7")
    with caplog.at_level(logging.INFO), pytest.raises(SlamError):
        slam_train()
    assert not [record for record in caplog.records if record.exc_info]


def test_a_flow_that_is_killed_leaves_no_stage_running(project, prefect_server):
    root = project(middle="sleep 1234")
    code = "from flows.train import slam_train; slam_train()"
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PREFECT_API_URL": PREFECT_API_URL.value()}
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=root, env=env, stderr=subprocess.DEVNULL)
    sleeping = wait_for_sleep(killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    psutil.wait_procs([sleeping], timeout=20)
    assert not sleeping.is_running() or sleeping.status() == psutil.STATUS_ZOMBIE


def wait_for_sleep(flow_process: subprocess.Popen, within: float = 300) -> psutil.Process:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and flow_process.poll() is None:
        for process in psutil.Process(flow_process.pid).children(recursive=True):
            if process.name() == "sleep" and "1234" in process.cmdline():
                return process
        time.sleep(0.2)
    raise AssertionError("the stage did not start")


def test_only_the_profile_that_dvc_would_build_is_accepted():
    params = REPOSITORY / "params.yaml"
    assert chosen_profile(None, params) == chosen_profile("tiny", params) == "tiny"
    with pytest.raises(SlamError, match="set `profile: sd15` in that file"):
        chosen_profile("sd15", params)


def test_of_dvcs_report_only_the_stages_own_lines_are_kept():
    said = ["Running stage 'x':", "> slam x", "x: expected a, found b", "ERROR: failed to reproduce 'x': exited with 1"]
    assert own_words(said) == "x: expected a, found b"
    assert (
        own_words(["ERROR: failed to reproduce 'x': a.txt is missing"])
        == "ERROR: failed to reproduce 'x': a.txt is missing"
    )
