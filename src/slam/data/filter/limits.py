"""The limits of `filter.limits`: what each is a limit of, and why a row goes.

N rows. A value that is missing is null; 0.0 is a value like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from slam.config_data import Limit, Limits
from slam.data.records import STATUS


class Column(NamedTuple):
    """What a limit is a limit of."""

    values: Callable[[pa.Table], pa.ChunkedArray]  # of a table of RECORD: [N], null where missing
    label: str  # on the picture
    edges: np.ndarray  # of its histogram; what lies beyond them counts in the bins at the ends
    log: bool = False  # whether the histogram's axis is logarithmic


def _itself(name: str) -> Callable[[pa.Table], pa.ChunkedArray]:
    return lambda rows: rows[name]


def aspect(rows: pa.Table) -> pa.ChunkedArray:
    """Long side / short side, float32 [N]; null where a side is not known or no side."""
    width, height = (pc.cast(rows[side], pa.float32()) for side in ("width", "height"))
    ratio = pc.divide(pc.max_element_wise(width, height, skip_nulls=False), pc.min_element_wise(width, height))
    return pc.if_else(pc.is_finite(ratio), ratio, None)


def _length(rows: pa.Table) -> pa.ChunkedArray:
    return pc.utf8_length(rows["caption"])


def _whole(start: int, end: int) -> np.ndarray:
    """Edges between whole numbers, evenly spaced on a logarithmic axis as far as that goes."""
    return np.unique(np.geomspace(start, end, 81).round())


# In the order in which they are asked: the first that a row is beyond is the reason it goes.
LIMITS = {
    "aesthetic": Column(_itself("aesthetic"), "aesthetics score", np.linspace(0, 10, 101)),
    "short_side": Column(_itself("short_side"), "short side, pixels", _whole(8, 8192), log=True),
    "aspect": Column(aspect, "long side / short side", np.geomspace(1, 10, 81), log=True),
    "watermark": Column(_itself("watermark"), "probability of a watermark", np.linspace(0, 1, 101)),
    "nsfw": Column(_itself("nsfw"), "probability of unsafe content", np.linspace(0, 1, 101)),
    "similarity": Column(_itself("similarity"), "similarity of picture and caption", np.linspace(0, 0.6, 101)),
    "caption": Column(_length, "length of the caption, characters", _whole(1, 1000), log=True),
}
# Found over all shards, in this order (slam.data.filter.repeats).
REMOVAL, EVALUATION, DUPLICATE, NEAR = OVER_ALL = ("removal", "evaluation", "duplicate", "near duplicate")
# The first that applies counts. `aesthetic missing`: no score, and the limit says to drop such a row.
REASONS = (
    *STATUS[1:],
    *(reason for name in LIMITS for reason in (f"{name} missing", name)),
    *OVER_ALL,
)
STAYS = -1


class Values(NamedTuple):
    """A column as numpy has it."""

    numbers: np.ndarray  # [N], 0 where missing
    missing: np.ndarray  # bool [N]


def values(rows: pa.Table) -> dict[str, Values]:
    """The column of each of LIMITS."""
    return {name: _numpy(column.values(rows)) for name, column in LIMITS.items()}


def _numpy(column: pa.ChunkedArray) -> Values:
    missing = pc.is_null(column).to_numpy()
    return Values(pc.fill_null(column, 0).to_numpy(), missing)


def beyond(numbers: np.ndarray, limit: Limit) -> tuple[np.ndarray, np.ndarray]:
    """Which of the numbers are too small, which too large: bool [N] each.

    Compared in the numbers' own type: a float32 of 0.3 is not more than a limit of 0.3.
    """
    ends = (-np.inf if limit.min is None else limit.min, np.inf if limit.max is None else limit.max)
    low, high = (numbers.dtype.type(end) if numbers.dtype.kind == "f" else end for end in ends)
    return numbers < low, numbers > high


def verdicts(status: pa.ChunkedArray, columns: dict[str, Values], limits: Limits) -> np.ndarray:
    """int8 [N]: the place in REASONS of the first reason for which each row goes, or STAYS."""
    codes = pc.fill_null(pc.index_in(status, pa.array(STATUS)), len(STATUS) - 1).to_numpy()  # other words fail a suite
    found = codes.astype(np.int8) - 1  # SUCCESS is STATUS[0], STAYS is -1
    for name, column in columns.items():
        limit = getattr(limits, name)
        if limit is None:
            continue
        stays = found == STAYS
        if limit.missing == "drop":
            found[stays & column.missing] = REASONS.index(f"{name} missing")
        low, high = beyond(column.numbers, limit)
        found[stays & ~column.missing & (low | high)] = REASONS.index(name)
    return found


def rejected(rows: pa.Table, columns: dict[str, Values], found: np.ndarray, limits: Limits) -> pa.Table:
    """key, reason, detail of the rows that go, in the order of the reasons."""
    parts = []
    for code in np.unique(found[found != STAYS]):
        reason, gone = REASONS[code], np.flatnonzero(found == code)
        if reason in LIMITS:
            detail = _beyond_what(columns[reason].numbers[gone], getattr(limits, reason))
        elif reason in STATUS:
            detail = rows["detail"].take(gone)
        else:
            detail = pa.nulls(len(gone), pa.string())
        reasons = pa.array(np.full(len(gone), reason)).cast(pa.string())
        parts.append(pa.table({"key": rows["key"].take(gone), "reason": reasons, "detail": detail}))
    empty = pa.table({name: pa.nulls(0, pa.string()) for name in ("key", "reason", "detail")})
    return pa.concat_tables(parts or [empty])


def _beyond_what(numbers: np.ndarray, limit: Limit) -> pa.Array:
    """`5.25 < 6.0` of each."""
    low, _ = beyond(numbers, limit)
    ends = pc.if_else(pa.array(low), f" < {limit.min}", f" > {limit.max}")
    return pc.binary_join_element_wise(pa.array(numbers).cast(pa.string()), ends, "")
