"""`make up` and `make down`: real servers on free ports, the deployment command, and processes that are told apart."""

import os
import shlex
import shutil
import socket
import subprocess
import sys

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


@pytest.mark.slow
def test_up_deploys_the_flow_that_the_command_line_runs_and_down_stops_everything(project, monkeypatch, capsys):
    root = project()
    for name in ("flows", "mlflow"):
        shutil.copytree(REPOSITORY / name, root / name)
    for name in ("prefect.yaml", "prefect.toml"):
        shutil.copy(REPOSITORY / name, root)
    # The same deployment, of a flow that ends after the stages: there is no student here to register.
    flow = (root / "flows/train.py").read_text().split("    version = register(name)")[0] + "    return {}\n"
    rest = (REPOSITORY / "flows/train.py").read_text().split("\n\n\ndef chosen_profile")[1]
    (root / "flows/train.py").write_text(f"{flow}\n\ndef chosen_profile{rest}")
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    try:
        services.up(root, free_ports())
        tree = [psutil.Process(entry["pid"]) for entry in services.alive(root)]
        assert len(tree) == 3
        services.up(root, free_ports())
        assert "Already up." in capsys.readouterr().out
        ran = subprocess.run(
            ["sh", "-c", ". ./.env && prefect deployment run slam-train/default --watch"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert (root / "c.txt").read_text() == "one\n"
        tree += [child for process in tree for child in process.children(recursive=True)]
    finally:
        services.down(root)
    assert not [process for process in tree if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not (root / ".env").exists()


def test_a_path_with_a_blank_survives_the_shell(tmp_path):
    root = tmp_path / "a folder"
    lines = "".join(map(services.export, services.environment(root, services.PORTS).items()))
    said = subprocess.run(
        ["sh", "-c", f'{lines}echo "$SLAM_ROOT"; echo "$PATH"'], capture_output=True, text=True
    ).stdout
    assert said.splitlines()[0] == str(root)
    assert said.splitlines()[1].startswith(str(sys.prefix)) and said.splitlines()[1].endswith(os.environ["PATH"])
    assert shlex.quote(str(root)) in lines
