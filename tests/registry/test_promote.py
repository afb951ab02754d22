"""Decisions about versions, in a real MLflow (SQLite and a folder)."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from slam import cli, paths
from slam.errors import SlamError
from slam.registry.champion import model_folder
from slam.registry.moves import OvertakenError
from slam.registry.promote import promote, rollback
from slam.registry.remeasure import mark_drift, record
from tests.registry.conftest import REPOSITORY
from tests.registry.records import good_records
from tests.registry.test_registry import aliases, register

WEIGHTS = Path("unet/diffusion_pytorch_model.safetensors")


@pytest.fixture
def three(finished):
    """Versions 1, 2, 3, promoted in that order."""
    versions = [register(finished, fid) for fid in (10.0, 9.9, 9.8)]
    assert [promote(version, finished).alias for version in versions] == ["champion"] * 3
    return finished


def tags(version: str) -> dict:
    return MlflowClient().get_model_version("slam", version).tags


def run_of(version: str) -> str:
    return MlflowClient().get_model_version("slam", version).run_id


@pytest.mark.slow
def test_of_promotions_at_once_one_wins_and_the_others_are_told(finished):
    versions = [register(finished, fid) for fid in (10.0, 9.9, 9.8)]

    def attempt(version: str):
        try:
            return promote(version, finished).alias
        except OvertakenError as error:
            return str(error)

    with ThreadPoolExecutor(3) as pool:
        found = dict(zip(versions, pool.map(attempt, versions), strict=True))
    (winner,) = [version for version, said in found.items() if said == "champion"]
    assert aliases() == {"champion": winner}
    for version in set(versions) - {winner}:
        told = f"version {version} passed, but another was faster: champion was nobody and is version {winner} now"
        assert found[version].startswith(told)
        assert f"`slam promote {version}` judges it again" in found[version]
        assert tags(version)["gate.alias"] == "none"


@pytest.mark.slow
def test_rollback_goes_back_through_the_champions_one_by_one_and_then_says_so(three):
    assert aliases() == {"champion": "3", "previous": "2"}
    decision = rollback(three, why="it drew squares")
    assert (decision.version, decision.before) == ("2", "3")
    assert aliases() == {"champion": "2", "previous": "1", "challenger": "3"}
    assert tags("3")["gate.reason"] == "rolled back to version 2: it drew squares"
    assert tags("2")["gate.reason"] == "rolled back to from 3: it drew squares"
    rollback(three)
    assert aliases() == {"champion": "1", "challenger": "2"}
    with pytest.raises(SlamError, match="no previous champion to go back to"):
        rollback(three)
    assert aliases() == {"champion": "1", "challenger": "2"}


@pytest.mark.slow
def test_rollback_of_a_champion_that_no_longer_is_does_nothing(three):
    with pytest.raises(OvertakenError, match="champion is 3, not version 2"):
        rollback(three, only="2")
    assert aliases() == {"champion": "3", "previous": "2"}


@pytest.mark.slow
def test_rollback_to_files_that_changed_or_to_a_drifted_version_is_refused(three):
    mark_drift("2", ["fid at 4 steps: 30, worse than 10"], three)
    with pytest.raises(SlamError, match="previous is version 2, which is not fit: fid at 4 steps: 30, worse"):
        rollback(three)
    mark_drift("2", [], three)
    flip(model_folder("models:/slam/2", three) / WEIGHTS)
    with pytest.raises(SlamError, match="not fit: the files are not those that were measured"):
        rollback(three)
    assert aliases() == {"champion": "3", "previous": "2"}


def flip(file: Path) -> None:
    """One weight becomes another."""
    weights = load_file(file)
    key = sorted(weights)[0]
    weights[key].view(-1)[0] += 1
    save_file(weights, file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: flip(folder / WEIGHTS), "the files are not those that were measured: expected sha256"),
        (lambda folder: not_a_number(folder / WEIGHTS), "has values that are not finite"),
        (lambda folder: (folder / "unet" / "extra.bin").write_bytes(b"x"), "weights may be pickles: unet/extra.bin"),
    ],
)
def test_a_version_whose_files_are_not_sound_is_no_champion(spoil, reason, finished):
    version = register(finished)
    spoil(model_folder(f"models:/slam/{version}", finished))
    decision = promote(version, finished)
    assert decision.alias == "challenger"
    assert reason in decision.reason


def not_a_number(file: Path) -> None:
    weights = load_file(file)
    weights[sorted(weights)[0]].view(-1)[0] = np.nan
    save_file(weights, file)


def test_a_version_without_an_evaluation_is_refused_and_nothing_changes(finished):
    register(finished)
    client, folder = MlflowClient(), (finished / paths.STUDENT).as_uri()
    run = client.create_run(client.get_experiment_by_name("slam").experiment_id)
    for version in (
        client.create_model_version("slam", folder, run.info.run_id),
        client.create_model_version("slam", folder),
    ):
        with pytest.raises(SlamError, match=f"version {version.version} of slam was registered without an evaluation"):
            promote(str(version.version), finished)
    assert aliases() == {}


@pytest.mark.slow
def test_a_champion_set_by_hand_is_respected_and_noticed(three):
    client = MlflowClient()
    client.set_registered_model_alias("slam", "champion", "1")
    better = register(three, fid=9.0)
    decision = promote(better, three)
    assert decision.before == "1"
    assert decision.noticed == "champion was set by hand: from version 3 to version 1"
    assert tags(better)["gate.noticed"] == decision.noticed
    assert aliases() == {"champion": better, "previous": "1"}
    assert promote(register(three, fid=8.9), three).noticed is None


@pytest.mark.slow
def test_every_decision_is_a_row_for_each_rule_in_a_table_over_all_versions(three):
    promote(register(three, 15.0), three)
    table = mlflow.load_table("decisions.json", run_ids=[run_of(str(version)) for version in (1, 2, 3, 4)])
    alias_of = table.groupby("version")["alias"].first().to_dict()
    assert alias_of == {1: "champion", 2: "champion", 3: "champion", 4: "challenger"}
    failed = table[~table["passed"].astype(bool)]
    assert set(failed["version"]) == {4}
    assert "fid at 1 step 15, at most 1.15 x the champion's 9.8" in set(failed["says"])
    assert set(table[table["rule"] == "decision"]["version"]) == {1, 2, 3, 4}


@pytest.mark.slow
def test_a_new_evaluation_goes_with_the_version_and_a_drift_bars_it_until_it_is_cleared(finished):
    version = register(finished)
    record(version, good_records(30.0), finished)
    record(version, good_records(31.0), finished)
    history = MlflowClient().get_metric_history(run_of(version), "again/student/lcm/4/fid")
    assert [(point.step, point.value) for point in history] == [(1, 30.0), (2, 31.0)]
    assert mlflow.get_run(run_of(version)).data.metrics["student/lcm/4/fid"] == 10.0  # as registered
    mark_drift(version, ["fid at 4 steps: 30, worse than 10 [9, 11]"], finished)
    decision = promote(version, finished)
    assert (decision.alias, decision.reason) == ("challenger", "fid at 4 steps: 30, worse than 10 [9, 11]")
    mark_drift(version, [], finished)
    assert promote(version, finished).alias == "champion"


def test_a_name_that_names_nothing_is_said_with_what_there_is(finished):
    promote(register(finished), finished)
    for uri, says in {
        "models:/slam@chief": "models:/slam@chief does not exist: there is @champion .version 1.",
        "models:/slam/7": "version 7 of slam does not exist: there are 1",
        "models:/other/1": "models:/other/1: expected models:/slam@ALIAS or models:/slam/VERSION",
    }.items():
        with pytest.raises(SlamError, match=says):
            model_folder(uri, finished)


def test_the_commands_print_every_rule_and_fail_with_the_reason(finished, monkeypatch):
    monkeypatch.chdir(finished)
    good, bad = register(finished, 10.0), register(finished, 15.0)
    done = CliRunner().invoke(cli.app, ["promote", good], catch_exceptions=False)
    assert done.exit_code == 0
    assert "pass  fid at 1 step 10, at most 0.5 x dpm++'s 40" in done.stdout
    assert f"version {good} is champion; before, it was nobody" in done.stdout
    with pytest.raises(
        SlamError, match=f"version {bad} is not promoted: fid at 1 step 15, at most 1.15 x the champion"
    ):
        CliRunner().invoke(cli.app, ["promote", bad], catch_exceptions=False)
    with pytest.raises(SlamError, match="no previous champion"):
        CliRunner().invoke(cli.app, ["rollback"], catch_exceptions=False)


def test_a_promotion_that_prefect_cannot_be_told_of_stands_and_says_so(finished, monkeypatch):
    monkeypatch.chdir(finished)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    done = CliRunner().invoke(cli.app, ["promote", register(finished, 10.0)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "note  PREFECT_API_URL = http://127.0.0.1:9/api does not answer" in done.stdout
    assert aliases() == {"champion": "1"}


def test_where_nothing_was_registered_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow").mkdir()
    shutil.copy(REPOSITORY / paths.GATE, tmp_path / paths.GATE)
    for command in (lambda: promote("1", tmp_path), lambda: rollback(tmp_path), lambda: mark_drift("1", [], tmp_path)):
        with pytest.raises(SlamError, match="mlflow.db does not exist: nothing was registered here"):
            command()
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow"]
