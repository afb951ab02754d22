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

from flows import checkout, graph, stages
from flows.stages import own_words
from flows.train import chosen_stages, slam_train
from slam import config
from slam.errors import SlamError
from slam.files import locked
from tests.flows.conftest import CODE

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
    env = {**os.environ, "PYTHONPATH": CODE, "PREFECT_API_URL": PREFECT_API_URL.value()}
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


def test_only_the_stages_that_were_asked_for_are_built_in_the_order_of_the_graph(project, prefect_server):
    root = project()
    assert chosen_stages(None, root) == ["start", "middle", "last"]
    assert chosen_stages(["middle", "start"], root) == ["start", "middle"]
    assert slam_train(only=["start"]) == {}
    assert (root / "a.txt").exists() and not (root / "b.txt").exists()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"only": ["start", "finish"]}, "only: finish: no such stage in dvc.yaml; there are start, middle, last"),
        ({"profile": "sd16"}, "profile = 'sd16' is not one of tiny, sd15, sd21"),
        ({"overrides": {"train.stepz": 3}}, "train.stepz is not a key: did you mean steps?"),
    ],
)
def test_a_wrong_parameter_is_told_before_anything_starts(project, prefect_server, parameters, says):
    root = project()
    before = (root / "params.yaml").read_bytes()
    with pytest.raises(SlamError) as error:
        slam_train(**parameters)
    assert says in str(error.value)
    assert not (root / "a.txt").exists()
    assert (root / "params.yaml").read_bytes() == before


def test_what_a_run_sets_is_in_its_log_and_in_params_yaml(project, prefect_server, caplog):
    root = project()
    with caplog.at_level(logging.INFO, "prefect.flow_runs"):
        slam_train(overrides={"train.steps": 7}, only=["start"])
    assert config.load(root / "params.yaml").train.steps == 7
    assert "-      steps: 350\n+      steps: 7" in caplog.text


def test_a_second_flow_in_the_same_folder_is_told_who_works_there(project, prefect_server):
    project()
    with locked(checkout.LOCK, "test"):
        checkout.LOCK.write_text("slam-train, run blue-crow")
        with pytest.raises(SlamError, match=r"another flow works in .* \(slam-train, run blue-crow\): wait for it"):
            slam_train()


def test_a_server_that_is_gone_is_named_before_anything_starts(project, prefect_server, monkeypatch):
    root = project()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(SlamError, match="MLFLOW_TRACKING_URI = http://127.0.0.1:9 does not answer"):
        slam_train()
    assert not (root / "a.txt").exists()


def test_of_dvcs_report_only_the_stages_own_lines_are_kept():
    said = ["Running stage 'x':", "> slam x", "x: expected a, found b", "ERROR: failed to reproduce 'x': exited with 1"]
    assert own_words(said) == "x: expected a, found b"
    assert (
        own_words(["ERROR: failed to reproduce 'x': a.txt is missing"])
        == "ERROR: failed to reproduce 'x': a.txt is missing"
    )
