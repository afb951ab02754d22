"""The promotion gate: pure rules over the records of `reports/metrics.json`; mlflow/promotion.yaml has the numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import PositiveFloat, PositiveInt

from slam.config import Frozen, parse
from slam.errors import SlamError

Records = list[dict]  # of reports/metrics.json: model, sampler, steps, fid, clip_score, faithfulness, …, protocol
Limits = dict[PositiveInt, PositiveFloat]  # step count -> ratio


class Gate(Frozen):
    fid_of_best_training_free: Limits
    clip_score_of_teacher: Limits
    faithfulness_of_teacher: Limits
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
    return [
        _finite(records),
        _one_protocol(records, champion),
        *(
            _at_most(limit, "fid", steps, records, *_best_training_free(records, steps))
            for steps, limit in gate.fid_of_best_training_free.items()
        ),
        *_floors(gate.clip_score_of_teacher, "clip_score", records),
        *_floors(gate.faithfulness_of_teacher, "faithfulness", records),
        *_against_champion(gate.fid_of_champion, records, champion),
    ]


def _finite(records: Records) -> Check:
    bad = [
        f"{record['model']} {record['sampler']} {record['steps']} steps: {key} = {value}"
        for record in records
        for key, value in record.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    return Check("finite", not bad, "; ".join(bad) or "every number is finite")


def _one_protocol(records: Records, champion: Records | None) -> Check:
    """Numbers of two protocols say nothing about each other (other captions, counts or features)."""
    ours, theirs = ({f"{r['protocol']} ({r['protocol_hash'][:8]})" for r in side} for side in (records, champion or []))
    if len(ours | theirs) == 1:
        return Check("one protocol", True, f"measured under {ours.pop()}")
    advice = "; a new protocol needs the alias champion removed first (mlflow/README.md)" if theirs - ours else ""
    return Check("one protocol", False, f"measured under {', '.join(sorted(ours | theirs))}{advice}")


def _best_training_free(records: Records, steps: int) -> tuple[float | None, str]:
    free = [record for record in records if record["model"] == "teacher" and record["steps"] == steps]
    best = min(free, key=lambda record: record["fid"], default=None)
    return (best["fid"], best["sampler"]) if best else (None, "a training-free sampler")


def _floors(limits: Limits, metric: str, records: Records) -> list[Check]:
    if all(record.get(metric) is None for record in records):
        return []  # not measured at all, as faithfulness without a judge
    teacher = max((record for record in records if record["model"] == "teacher"), key=lambda r: r["steps"], default={})
    checks = []
    for steps, limit in limits.items():
        found, reference = _student(records, steps).get(metric), teacher.get(metric)
        says = f"{metric} {_at(steps)} {_number(found)}, at least {limit:g} x the teacher's {_number(reference)}"
        passed = found is not None and reference is not None and found >= limit * reference
        checks.append(Check(f"{metric} {_at(steps)}", passed, says))
    return checks


def _against_champion(limit: float, records: Records, champion: Records | None) -> list[Check]:
    pairs = [(record["steps"], record["fid"]) for record in champion or [] if record["model"] == "student"]
    return [_at_most(limit, "fid", steps, records, fid, "the champion") for steps, fid in pairs]


def _at_most(limit: float, metric: str, steps: int, records: Records, reference: float | None, whose: str) -> Check:
    found = _student(records, steps).get(metric)
    says = f"{metric} {_at(steps)} {_number(found)}, at most {limit:g} x {whose}'s {_number(reference)}"
    passed = found is not None and reference is not None and found <= limit * reference
    return Check(f"{metric} {_at(steps)} against {whose}", passed, says)


def _student(records: Records, steps: int) -> dict:
    return next((record for record in records if record["model"] == "student" and record["steps"] == steps), {})


def _at(steps: int) -> str:
    return f"at {steps} step{'s' * (steps > 1)}"


def _number(value: float | None) -> str:
    return "(not measured)" if value is None else f"{value:.4g}"
