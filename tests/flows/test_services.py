"""`make up` and `make down`: what they refuse, and processes that are told apart. test_live.py runs them."""

import os
import shlex
import socket
import subprocess
import sys
import time

import psutil
import pytest

from flows import services
from slam.errors import SlamError
from slam.files import write_json
from tests.flows.conftest import REPOSITORY


def free_ports() -> dict[str, int]:
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind((services.HOST, 0))
        return dict(zip(services.PORTS, (one.getsockname()[1], two.getsockname()[1]), strict=True))


def test_a_pid_that_now_belongs_to_another_process_is_not_ours(tmp_path):
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        started = psutil.Process(sleeper.pid).create_time()
        entry = {"name": "worker", "pid": sleeper.pid, "started": started}
        write_json(tmp_path / services.STATE, [entry, entry | {"name": "mlflow", "started": started - 60}])
        assert [entry["name"] for entry in services.alive(tmp_path)] == ["worker"]
        write_json(tmp_path / services.STATE, [entry | {"started": started - 60}])
        services.down(tmp_path)
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_busy_port_is_named_with_the_way_out(tmp_path):
    with socket.socket() as taken:
        taken.bind((services.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SlamError, match=f"port {port} is taken .*make up MLFLOW_PORT=NUMBER"):
            services.up(tmp_path, {**free_ports(), "MLFLOW_PORT": port})
    assert not (tmp_path / services.STATE).exists()


def test_an_env_file_of_the_users_own_is_neither_overwritten_nor_removed(tmp_path):
    (tmp_path / ".env").write_text("export TOKEN=mine\n")
    with pytest.raises(SlamError, match="not one that `make up` wrote"):
        services.up(tmp_path, free_ports())
    services.down(tmp_path)
    assert (tmp_path / ".env").read_text() == "export TOKEN=mine\n"


def test_a_schedule_that_is_none_is_told_before_any_server_is_started(tmp_path):
    text = (REPOSITORY / "prefect.yaml").read_text().replace('cron: "0 3 * * *"', 'cron: "3 o\'clock"')
    (tmp_path / "prefect.yaml").write_text(text)
    with pytest.raises(SlamError, match='slam-evaluate/nightly: schedule cron = "3 o\'clock": Invalid cron'):
        services.up(tmp_path, free_ports())
    assert not (tmp_path / services.STATE).exists()


def test_what_a_killed_service_left_is_stopped_and_nothing_else(tmp_path):
    env = {**os.environ, "SLAM_ROOT": str(tmp_path)}
    shell = subprocess.Popen(["sh", "-c", "sleep 61 & wait"], env=env, start_new_session=True)
    other = subprocess.Popen(["sleep", "62"], start_new_session=True)
    try:
        (left,) = until_one(psutil.Process(shell.pid).children)
        entry = {"name": "mlflow", "pid": shell.pid, "started": psutil.Process(shell.pid).create_time()}
        write_json(tmp_path / services.STATE, [entry, {"name": "worker", "pid": other.pid, "started": 0.0}])
        shell.kill()
        shell.wait()
        services.down(tmp_path)
        psutil.wait_procs([left], timeout=10)
        assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def until_one(find):
    for _ in range(100):
        if found := find():
            return found
        time.sleep(0.05)
    raise AssertionError("nothing was found")


def test_a_path_with_a_blank_survives_the_shell(tmp_path):
    root = tmp_path / "a folder"
    lines = "".join(map(services.export, services.environment(root, services.PORTS).items()))
    said = subprocess.run(
        ["sh", "-c", f'{lines}echo "$SLAM_ROOT"; echo "$PATH"'], capture_output=True, text=True
    ).stdout
    assert said.splitlines()[0] == str(root)
    assert said.splitlines()[1].startswith(str(sys.prefix)) and said.splitlines()[1].endswith(os.environ["PATH"])
    assert shlex.quote(str(root)) in lines
