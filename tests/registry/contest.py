"""Contestants for the alias champion, in processes of their own as on several machines: nothing local is shared."""

import random
from concurrent.futures import ThreadPoolExecutor

from mlflow import MlflowClient

from slam.registry.aliases import holders
from slam.registry.moves import OvertakenError, move

MOST = 8  # contestants
VERSIONS = 2 * MOST  # so that none of a round is champion already


def contestants(seed: int, rounds: int) -> list[int]:
    """How many take part in each round: 2 to 8."""
    return [random.Random(f"{seed} {number}").randint(2, MOST) for number in range(rounds)]


def contend(uri: str, places: list[int], counts: list[int], barrier, results) -> None:
    """The contestants `places`, a thread each; puts (round, version, won) for each attempt."""
    client = MlflowClient(uri)

    def play(place: int) -> None:
        for number, count in enumerate(counts):
            expected = holders(client).get("champion")  # all see the same: nobody moves before the barrier
            barrier.wait()
            if place < count:
                version = str(number % 2 * MOST + place + 1)
                try:
                    move(client, {"previous": expected, "champion": version}, expected)
                    results.put((number, version, True))
                except OvertakenError:
                    results.put((number, version, False))
            barrier.wait()

    with ThreadPoolExecutor(len(places)) as pool:
        list(pool.map(play, places))
