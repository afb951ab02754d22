"""How an alias moves: compare and set, one mover at a time over all machines that use the server.

MLflow gives an alias to whoever asks last. But a registered model's name is unique in its database, so only one can
create it: who creates LOCK has the turn, until it deletes it, some milliseconds later.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from slam.errors import SlamError
from slam.registry.aliases import holders
from slam.registry.track import NAME

LOCK = f"{NAME}.moving"  # a registered model without versions, while an alias moves
LEASE = 30.0  # seconds that a lock may stand with the same owner; then its owner is taken for dead
LAST_SET = "champion.set_by_slam"  # tag of the registered model: what `champion` is unless it was moved by hand


class OvertakenError(SlamError):
    """Another has moved the alias `champion` meanwhile."""


def move(client: MlflowClient, aliases: dict[str, str | None], expected: str | None) -> None:
    """Sets each alias to its version, or removes it (None), in the order given.

    `champion` moves only if it still is `expected` (None: nobody); if not, nothing does: raises `OvertakenError`.
    """

    def compare() -> None:
        found = holders(client).get("champion")
        if "champion" in aliases and found != expected:
            was, now = (f"version {version}" if version else "nobody" for version in (expected, found))
            raise OvertakenError(f"another was faster: champion was {was} and is {now} now")

    with turn(client, compare) as asked:
        compare()
        if time.monotonic() - asked > LEASE / 2:  # nobody has taken the turn away yet
            raise SlamError("the MLflow server takes too long to answer; no alias was moved: try again")
        for alias, version in aliases.items():
            if version is None:
                client.delete_registered_model_alias(NAME, alias)
            else:
                client.set_registered_model_alias(NAME, alias, version)
        if "champion" in aliases:
            client.set_registered_model_tag(NAME, LAST_SET, aliases["champion"])


@contextmanager
def turn(client: MlflowClient, compare: Callable[[], None], lease: float = LEASE) -> Iterator[float]:
    """One holder at a time, over all machines; gives when it asked for the turn. `compare` may end the wait by raising.

    The lock of a dead holder is known by this machine's clock alone: it has stood for `lease` seconds. It is renamed
    after its owner before it is deleted: of two who break the same lock one fails, and cannot break the next one's.
    """
    owner, seen, since = uuid4().hex, None, time.monotonic()
    while True:
        compare()
        asked = time.monotonic()
        with suppress(MlflowException):  # there already, or there and gone in between
            client.create_registered_model(LOCK, description=owner)
            break
        with suppress(MlflowException):  # gone meanwhile
            standing = client.get_registered_model(LOCK).description
            if standing == owner:
                break  # it was created, and the answer was lost
            if standing != seen:
                seen, since = standing, time.monotonic()
            elif time.monotonic() - since > lease:
                client.rename_registered_model(LOCK, f"{LOCK}.left.{standing}")
                # Long enough that nobody who saw the old lock still means to rename it.
                time.sleep(1)
                client.delete_registered_model(f"{LOCK}.left.{standing}")
        time.sleep(random.uniform(0.02, 0.06))
    try:
        yield asked
    finally:
        with suppress(MlflowException):
            if client.get_registered_model(LOCK).description == owner:
                client.delete_registered_model(LOCK)


def moved_by_hand(client: MlflowClient) -> str | None:
    """What a person did to `champion` since it was last set here, in words; None if nothing."""
    found = holders(client).get("champion")
    last = client.get_registered_model(NAME).tags.get(LAST_SET)
    if last in (None, found):
        return None
    return f"champion was set by hand: from version {last} to {f'version {found}' if found else 'nobody'}"
