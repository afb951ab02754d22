"""The promotion gate: pure rules over the records of `reports/metrics.json`; mlflow/promotion.yaml has the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import PositiveFloat, PositiveInt

from slam.config import Frozen, parse
from slam.errors import SlamError

Records = list[dict]  # of reports/metrics.json: model, sampler, steps, fid, fid_interval, clip_score, …, protocol_hash
Limits = dict[PositiveInt, PositiveFloat]  # step count -> ratio


class Gate(Frozen):
    fid_of_best_training_free: Limits
    clip_score_of_teacher: Limits
    faithfulness_of_teacher: Limits
    seconds_of_teacher: Limits
    fid_of_champion: PositiveFloat


class Check(NamedTuple):
    rule: str
    passed: bool
    says: str  # one line for a person: what was measured against what


def load_gate(path: str | Path) -> Gate:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SlamError(f"{path} does not exist: it holds the limits of promotion; restore it from git") from None
    except yaml.YAMLError as error:
        raise SlamError(f"{path}: expected YAML, found {error}") from None
    return parse(values, str(path), Gate)


def judge(gate: Gate, records: Records, champion: Records | None) -> list[Check]:
    """Every rule's outcome for the student in `records`, against the present champion's own, if there is one."""
    teacher = max((record for record in records if record.get("model") == "teacher"), key=_steps, default={})
    return [
        _finite(records),
        _one_protocol(records, champion),
        *(
            _at_most(limit, "fid", steps, records, *_best_training_free(records, steps))
            for steps, limit in gate.fid_of_best_training_free.items()
        ),
        *_floors(gate.clip_score_of_teacher, "clip_score", records, teacher),
        *_floors(gate.faithfulness_of_teacher, "faithfulness", records, teacher),
        *(
            _at_most(limit, "seconds_per_image", steps, records, teacher.get("seconds_per_image"), "the teacher")
            for steps, limit in gate.seconds_of_teacher.items()
        ),
        *(_against_champion(gate.fid_of_champion, records, row) for row in champion or [] if _is_student(row)),
    ]


def _finite(records: Records) -> Check:
    bad = [
        f"{record.get('model')} {record.get('sampler')} {record.get('steps')} steps: {key} = {value}"
        for record in records
        for key, value in _numbers(record)
        if not math.isfinite(value)
    ]
    return Check("finite", not bad, "; ".join(bad) or "every number is finite")


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a record, those in its lists and dicts too."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, key)
    elif isinstance(value, float | int):
        yield key, value


def _one_protocol(records: Records, champion: Records | None) -> Check:
    """Numbers of two protocols say nothing about each other (other captions, counts or features)."""
    ours, theirs = (
        {f"{r.get('protocol')} ({str(r.get('protocol_hash', 'no hash'))[:8]})" for r in side}
        for side in (records, champion or [])
    )
    if len(ours | theirs) == 1 and all(record.get("protocol_hash") for record in records):
        return Check("one protocol", True, f"measured under {ours.pop()}")
    advice = "; a new protocol needs the alias champion removed first (mlflow/README.md)" if theirs - ours else ""
    return Check("one protocol", False, f"measured under {', '.join(sorted(ours | theirs)) or 'none'}{advice}")


def _best_training_free(records: Records, steps: int) -> tuple[float | None, str]:
    free = [record for record in records if record.get("model") == "teacher" and record.get("steps") == steps]
    measured = [record for record in free if record.get("fid") is not None]
    best = min(measured, key=lambda record: record["fid"], default=None)
    return (best["fid"], best["sampler"]) if best else (None, "a training-free sampler")


def _floors(limits: Limits, metric: str, records: Records, teacher: dict) -> list[Check]:
    if metric == "faithfulness" and all(record.get(metric) is None for record in records):
        return []  # there is no judge for this profile's pictures
    checks = []
    for steps, limit in limits.items():
        found, reference = _student(records, steps).get(metric), teacher.get(metric)
        says = f"{metric} {_at(steps)} {_number(found)}, at least {limit:g} x the teacher's {_number(reference)}"
        passed = found is not None and reference is not None and found >= limit * reference
        checks.append(Check(f"{metric} {_at(steps)}", passed, says))
    return checks


def _against_champion(ratio: float, records: Records, champion: dict) -> Check:
    """No worse than the upper end of the champion's interval; than `ratio` x its FID where none was measured."""
    steps, interval = champion.get("steps"), champion.get("fid_interval")
    if not interval:
        return _at_most(ratio, "fid", steps, records, champion.get("fid"), "the champion")
    found, highest = _student(records, steps).get("fid"), interval[1]
    says = (
        f"fid {_at(steps)} {_number(found)}, at most {_number(highest)}, "
        f"the upper end of the champion's {_number(champion.get('fid'))}"
    )
    passed = found is not None and found <= highest
    return Check(f"fid {_at(steps)} against the champion", passed, says)


def _at_most(limit: float, metric: str, steps: int, records: Records, reference: float | None, whose: str) -> Check:
    found = _student(records, steps).get(metric)
    says = f"{metric} {_at(steps)} {_number(found)}, at most {limit:g} x {whose}'s {_number(reference)}"
    passed = found is not None and reference is not None and found <= limit * reference
    return Check(f"{metric} {_at(steps)} against {whose}", passed, says)


def _is_student(record: dict) -> bool:
    return record.get("model") == "student"


def _student(records: Records, steps: int) -> dict:
    return next((record for record in records if _is_student(record) and _steps(record) == steps), {})


def _steps(record: dict) -> int:
    return record.get("steps") or 0


def _at(steps: int) -> str:
    return f"at {steps} step{'s' * (steps > 1)}"


def _number(value: float | None) -> str:
    return "(not measured)" if value is None else f"{value:.4g}"
