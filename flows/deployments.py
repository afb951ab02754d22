"""Is prefect.yaml one that Prefect will take? Asked before any server is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from slam.errors import SlamError


def check(path: Path) -> None:
    """Raises `SlamError` naming the deployment and the schedule that is none."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        deployments = document["deployments"]
        named = [(f"{item['entrypoint'].split(':')[-1]}/{item['name']}", item) for item in deployments]
    except FileNotFoundError:
        raise SlamError(f"{path} does not exist: restore it from git") from None
    except yaml.YAMLError as error:
        raise SlamError(f"{path}: expected YAML, found {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise SlamError(f"{path}: expected `deployments`, a list whose items have a name and an entrypoint") from None
    for name, deployment in named:
        for schedule in deployment.get("schedules") or ():
            _check_schedule(f"{path}: deployment {name.replace('_', '-')}", schedule)


def _check_schedule(where: str, schedule: Any) -> None:
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

    kinds = {"cron": CronSchedule, "interval": IntervalSchedule, "rrule": RRuleSchedule}
    given = [kind for kind in kinds if isinstance(schedule, dict) and kind in schedule]
    if len(given) != 1:
        raise SlamError(f"{where}: a schedule has one of {', '.join(kinds)}; found {schedule!r}")
    kind = kinds[given[0]]
    try:
        kind(**{key: value for key, value in schedule.items() if key in kind.model_fields})
    except ValueError as error:  # pydantic's is one
        said = (
            "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())
            if hasattr(error, "errors")
            else str(error)
        )
        raise SlamError(f"{where}: schedule {given[0]} = {schedule[given[0]]!r}: {said}") from None
