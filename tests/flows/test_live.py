"""`make up` for real, on a throw-away project: server, worker, MLflow, every deployment, and what happens to runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from flows import services
from slam import config, paths
from slam.evaluation.evaluate import evaluate_stage
from slam.models.diffusion import load
from slam.models.export import export
from slam.registry.champion import model_folder
from slam.registry.register import register_stage
from tests.flows.conftest import CODE, REPOSITORY
from tests.flows.test_services import free_ports
from tests.registry.conftest import empty_database  # noqa: F401

pytestmark = pytest.mark.slow

WAIT = 300.0  # seconds; a busy machine needs them
# `middle` waits until the file `go` is there. Another `turn` is another command, which DVC has not run before.
STAGES = """
stages:
  middle:
    cmd: 'echo "turn {turn}: 40%|####  | 4/10 [00:01<00:02]"; while [ ! -e go ]; do sleep 0.27; done; cat a.txt > b.txt'
    deps: [a.txt]
    outs: [b.txt]
  start:
    cmd: echo one > a.txt; echo again >> starts.txt
    outs: [a.txt]
"""
ANY_STUDENT = "{fid_of_best_training_free: {}, clip_score_of_teacher: {}, faithfulness_of_teacher: {}, "
ANY_STUDENT += "seconds_of_teacher: {}, fid_of_champion: 9}"


def until(done: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if found := done():
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {WAIT:g} s: {what}")


class Live:
    """The project under `make up`, as a user at the command line has it."""

    def __init__(self, root: Path, ports: dict[str, int]) -> None:
        self.root, self.ports = root, ports
        self.env = os.environ | services.environment(root, ports)
        self.seen: set[psutil.Process] = set()

    def up(self) -> None:
        services.up(self.root, self.ports)
        self.seen |= {psutil.Process(entry["pid"]) for entry in services.alive(self.root)}

    def prefect(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "prefect", *arguments]
        ran = subprocess.run(command, cwd=self.root, env=self.env, capture_output=True, text=True, timeout=WAIT)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def start(self, deployment: str, **parameters: Any) -> str:
        """Returns the id of the run."""
        given = [item for key, value in parameters.items() for item in ("--param", f"{key}={json.dumps(value)}")]
        return self.prefect("deployment", "run", deployment, *given).split("UUID: ")[1].split()[0]

    def runs(self, flow: str | None = None) -> dict[str, tuple[str, str]]:
        """{id: (name of its state, message)}"""
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with (
            temporary_settings({PREFECT_API_URL: self.env["PREFECT_API_URL"]}),
            get_client(sync_client=True) as client,
        ):
            names = {str(item.id): item.name for item in client.read_flows()}
            runs = client.read_flow_runs(limit=200)
        own = [run for run in runs if run.state and flow in (None, names[str(run.flow_id)])]
        return {str(run.id): (run.state.name, run.state.message or "") for run in own}

    def ends(self, run: str, state: str) -> str:
        """Waits until the run is over; returns the message of its state, which must be `state`."""
        going = ("Scheduled", "Late", "Pending", "Running", "Cancelling", "Submitting", "AwaitingRetry")
        found, message = until(lambda: (s := self.runs()[run])[0] not in going and s, f"the end of run {run}")
        assert found == state, message
        return message

    def worker(self) -> psutil.Process:
        (pid,) = [entry["pid"] for entry in services.alive(self.root) if entry["name"] == "worker"]
        return psutil.Process(pid)

    def hold(self, turn: int) -> None:
        """From now on the stage `middle` has to be run, and waits."""
        (self.root / "go").unlink(missing_ok=True)
        (self.root / "dvc.yaml").write_text(STAGES.format(turn=turn))

    def stage(self) -> list[psutil.Process]:
        """The flow's process and all below it, once the stage `middle` waits."""

        def waiting() -> list[psutil.Process]:
            tree = self.worker().children(recursive=True)
            return tree if [one for one in tree if one.name() == "sleep"] else []

        return until(waiting, "the stage waits")

    def aliases(self) -> dict[str, str]:
        model = MlflowClient(self.env["MLFLOW_TRACKING_URI"]).get_registered_model("slam")
        return {alias: str(version) for alias, version in model.aliases.items()}

    def tags(self, version: str) -> dict[str, str]:
        return MlflowClient(self.env["MLFLOW_TRACKING_URI"]).get_model_version("slam", version).tags


def gone(processes: list[psutil.Process]) -> bool:
    return not [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def live(tmp_path_factory, random_teacher, random_judge, random_clip, evaluation_set, empty_database):  # noqa: F811
    root = tmp_path_factory.mktemp("live")
    for name in ("flows", "mlflow"):
        shutil.copytree(REPOSITORY / name, root / name)
    (root / ".dvc").mkdir()
    for name in ("prefect.yaml", "prefect.toml", "params.yaml", ".dvc/config"):
        shutil.copy(REPOSITORY / name, root / name)
    with (root / ".dvc/config").open("a") as file:
        file.write("    no_scm = true\n")
    (root / "dvc.yaml").write_text(STAGES.format(turn=0))
    (root / paths.GATE).write_text(ANY_STUDENT)
    # The night is on demand, and brings back the former champion.
    nightly = (root / "prefect.yaml").read_text().replace("rollback: false", "rollback: true")
    (root / "prefect.yaml").write_text(nightly)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["profiles"]["tiny"]["teacher"] = str(random_teacher)
    params["profiles"]["tiny"]["evaluate"] = {
        **{"protocol": "tiny", "samples": 16, "steps": [1, 2], "samplers": ["ddim"], "teacher_steps": 2},
        **{"features": str(random_judge), "clip": str(random_clip), "judge": str(random_judge)},
        **{"guidance": 2.0, "batch": 16, "rows": 3, "seed": 2},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copytree(evaluation_set, root / paths.EVALUATION)
    shutil.copy(empty_database, root)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_"))]:
            patch.delenv(name)
        patch.setenv("PYTHONPATH", CODE)
        project = Live(root, free_ports())
        try:
            project.up()
            yield project
            project.seen |= {
                child for one in project.seen if one.is_running() for child in one.children(recursive=True)
            }
        finally:
            services.down(root)
        assert gone(list(project.seen))
        assert not (root / ".env").exists()


@pytest.fixture(scope="module")
def two_versions(live, random_teacher):
    """Two registered students, measured for real: the second is the first, pushed a very little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(live.root)
        patch.setenv("MLFLOW_TRACKING_URI", live.env["MLFLOW_TRACKING_URI"])
        profile = config.load()
        torch.manual_seed(5)
        model = load(random_teacher)
        for push in (0.02, 0.0001):
            for weight in model.unet.parameters():
                weight.add_(push * torch.randn_like(weight))
            export(model, paths.STUDENT)
            evaluate_stage(profile.evaluate, profile.teacher, paths.STUDENT, paths.EVALUATION, paths.METRICS.parent)
            register_stage("tiny", profile)
        yield live


def test_a_cancelled_run_says_so_leaves_no_process_and_the_next_one_goes_on(live):
    live.hold(1)
    run = live.start("slam-train/default", only=["start", "middle"], overrides={"train.steps": 5})
    tree = live.stage()
    second = live.start("slam-train/default", only=["start"])
    live.prefect("flow-run", "cancel", run)
    live.ends(run, "Cancelled")
    until(lambda: gone(tree), "the end of the stage's processes")
    live.ends(second, "Completed")  # it waited in the queue: one run at a time has the GPU
    (live.root / "go").touch()
    live.ends(live.start("slam-train/default", only=["start", "middle"]), "Completed")
    assert (live.root / "b.txt").read_text() == "one\n"
    assert (live.root / "starts.txt").read_text() == "again\n"  # once
    assert config.load(live.root / "params.yaml").train.steps == 5


def test_a_promotion_by_command_or_flow_has_the_new_champion_measured(two_versions):
    live = two_versions

    def measured() -> list[str]:
        return [run for run, (state, _) in live.runs("slam-evaluate").items() if state != "Scheduled"]

    slam = Path(sys.executable).with_name("slam")
    said = subprocess.run([slam, "promote", "1"], cwd=live.root, env=live.env, capture_output=True, text=True)
    assert said.returncode == 0 and "version 1 is champion" in said.stdout and "note" not in said.stdout, said
    (first,) = until(measured, "an evaluation, which nobody asked for")
    live.ends(first, "Completed")
    live.ends(live.start("slam-promote/default", version="2"), "Completed")
    assert live.aliases() == {"champion": "2", "previous": "1"}
    until(lambda: len(measured()) == 2, "an evaluation of the second champion")
    for run in measured():
        live.ends(run, "Completed")
    assert "measured_again" in live.tags("2")
    assert "drift" not in live.tags("2")


def test_at_its_hour_a_drifted_champion_is_found_and_rolled_back(two_versions, monkeypatch):
    live = two_versions
    monkeypatch.chdir(live.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", live.env["MLFLOW_TRACKING_URI"])
    file = model_folder("models:/slam@champion") / "unet/diffusion_pytorch_model.safetensors"
    weights = {name: value + 0.3 * torch.randn_like(value) for name, value in load_file(file).items()}
    save_file(weights, file)
    live.prefect("deployment", "schedule", "create", "slam-evaluate/nightly", "--interval", "20", "--replace", "-y")
    until(lambda: "Drifted" in [state for state, _ in live.runs("slam-evaluate").values()], "a drift")
    live.prefect("deployment", "schedule", "clear", "slam-evaluate/nightly", "-y")
    (message,) = [said for state, said in live.runs("slam-evaluate").values() if state == "Drifted"]
    assert "worse than" in message and message.endswith("version 1 is champion again")
    assert live.aliases()["champion"] == "1"
    assert "worse than" in live.tags("2")["drift"]


def test_a_name_that_the_registry_does_not_have_fails_the_run_with_the_reason(two_versions):
    live = two_versions
    said = live.ends(live.start("slam-evaluate/default", model="models:/slam@best"), "Failed")
    assert "models:/slam@best does not exist: there is @" in said


@pytest.mark.nightly
def test_a_killed_worker_takes_its_run_with_it_and_after_a_reboot_make_up_says_what_died(live):
    live.hold(2)
    (live.root / "a.txt").write_text("one\n")
    run = live.start("slam-train/default", only=["middle"])
    tree = live.stage()
    for process in (*live.worker().children(), live.worker()):  # nobody is left to say anything
        process.send_signal(signal.SIGKILL)
    until(lambda: gone(tree), "the end of the run's processes")
    assert live.runs()[run][0] == "Running"
    live.up()
    assert live.runs()[run][0] == "Crashed"
    (live.root / "go").touch()
    live.ends(live.start("slam-train/default", only=["middle"]), "Completed")
    live.hold(3)
    run = live.start("slam-train/default", only=["middle"])
    tree = live.stage()
    live.worker().send_signal(signal.SIGKILL)  # alone
    live.ends(run, "Crashed")
    until(lambda: gone(tree), "the end of the run's processes")


# The last one: with so little patience the runs of other tests would be called dead too.
def test_a_run_whose_heart_stops_is_called_crashed(live):
    code = """
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.states import Running
from flows import dead_runs

dead_runs.settle(dead_runs.watch(silence=10))
with get_client(sync_client=True) as client:
    run = client.create_flow_run(flow(lambda: None, name="quiet"), state=Running())
emit_event("prefect.flow-run.heartbeat", resource={"prefect.resource.id": f"prefect.flow-run.{run.id}"})
print(run.id)
"""
    env = live.env | {"PYTHONPATH": CODE}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert live.ends(said.stdout.split()[-1], "Crashed") == "No heartbeat for 10 seconds"
