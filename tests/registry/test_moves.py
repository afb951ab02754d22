"""The alias champion among many who want it, in a real MLflow (SQLite)."""

import multiprocessing
import shutil
import time
from collections import Counter
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from slam.registry.aliases import holders
from slam.registry.moves import LOCK, OvertakenError, move, turn
from tests.registry.contest import MOST, VERSIONS, contend, contestants


@pytest.fixture
def uri(empty_database, tmp_path) -> str:
    """A registry with versions 1 to 16, of which 16 is champion."""
    shutil.copy(empty_database, tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    sixteen(client, tmp_path.as_uri())
    return client.tracking_uri


def sixteen(client: MlflowClient, source: str) -> None:
    client.create_registered_model("slam")
    for _ in range(VERSIONS):
        client.create_model_version("slam", source)
    client.set_registered_model_alias("slam", "champion", str(VERSIONS))


def play(uri: str, rounds: int, others: Set[str] = frozenset()) -> None:
    """Rounds of 2 to 8 contestants in two processes; one wins each, and the alias is always somebody's."""
    spawn = multiprocessing.get_context("spawn")
    barrier, results, counts = spawn.Barrier(MOST), spawn.SimpleQueue(), contestants(0, rounds)
    places = [[place for place in range(MOST) if place % 2 == half] for half in (0, 1)]
    workers = [spawn.Process(target=contend, args=(uri, mine, counts, barrier, results)) for mine in places]
    for worker in workers:
        worker.start()
    client, seen, found = MlflowClient(uri), Counter(), []
    while any(worker.is_alive() for worker in workers) or not results.empty():
        seen[holders(client).get("champion")] += 1
        while not results.empty():
            found.append(results.get())
        time.sleep(0.02)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert None not in seen
    assert Counter(number for number, _, _ in found) == dict(enumerate(counts))
    winners = sorted((number, version) for number, version, won in found if won)
    assert [number for number, _ in winners] == list(range(rounds))
    assert holders(client) == {"champion": winners[-1][1], "previous": winners[-2][1]}
    assert {model.name for model in client.search_registered_models()} == {"slam", *others}  # no lock is left


@pytest.mark.slow
def test_of_2_to_8_promotions_at_once_exactly_one_wins_in_each_of_30_rounds(uri):
    play(uri, 30)


@pytest.mark.nightly
def test_of_2_to_8_promotions_at_once_exactly_one_wins_in_each_of_1000_rounds(uri):
    play(uri, 1000)


def test_the_lock_of_a_dead_promotion_is_broken_by_one_alone_and_leaves_nothing(uri):
    client = MlflowClient(uri)
    client.create_registered_model(LOCK, description="of a promotion that was killed")
    inside, most = [], []

    def take(_) -> None:
        with turn(MlflowClient(uri), lambda: None, lease=0.3):
            inside.append(None)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(take, range(4)))
    assert time.monotonic() - began > 0.3
    assert most == [1] * 4
    assert {model.name for model in client.search_registered_models()} == {"slam"}


def test_who_waits_for_a_promotion_that_wins_is_told_without_waiting_longer(uri):
    client = MlflowClient(uri)
    with turn(client, lambda: None), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(move, MlflowClient(uri), {"champion": "2"}, "16")
        time.sleep(0.2)
        client.set_registered_model_alias("slam", "champion", "1")
        with pytest.raises(OvertakenError, match="champion was version 16 and is version 1 now"):
            waiting.result(timeout=5)
    assert holders(client) == {"champion": "1"}


def test_a_move_that_fails_half_way_leaves_the_champion_and_lets_the_next_one_move(uri):
    client = MlflowClient(uri)
    with pytest.raises(MlflowException):
        move(client, {"previous": "16", "champion": "99"}, "16")
    assert holders(client)["champion"] == "16"
    move(client, {"previous": "16", "champion": "3"}, "16")
    assert holders(client) == {"champion": "3", "previous": "16"}
