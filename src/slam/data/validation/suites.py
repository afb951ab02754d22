"""The suites that data must meet, as plain data, in the form that a user's file of further ones has."""

from __future__ import annotations

from typing import Any, NamedTuple

from slam.config import Filter
from slam.data.filter.conservation import NONE
from slam.data.filter.limits import LIMITS
from slam.data.records import DOWNLOAD, STATUS, SUCCESS

SCORES = (-2.0, 12.0)  # the predictors are affine: nominally 1 to 10, with a little on either side
HAD = {"row_condition": f'status=="{SUCCESS}"', "condition_parser": "pandas"}  # only these have a picture
# Scaled latents have about unit variance over a set; a picture of one colour has a standard deviation of a few
# hundredths and a mean of up to 2. `spread`: the posterior's own, 0.02 for the tiny VAE.
SAMPLE = {"mean": (-3.0, 3.0), "std": (0.005, 5.0), "spread": (0.0, 1.0)}
SET = {"mean": (-1.0, 1.0), "variance": (0.25, 4.0)}

Suite = list[dict[str, Any]]


class Outcome(NamedTuple):
    """Of one validation."""

    problems: list[str]  # a sentence for each expectation that failed
    page: str  # HTML


def _of(type_: str, notes: str = "", **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{type_}", "kwargs": kwargs, "notes": notes}


def rows(config: Filter) -> Suite:
    """For the records of a shard."""
    stops = {name: limit for name in LIMITS if (limit := getattr(config.limits, name)) and limit.missing == "stop"}
    return [
        _of("column_values_to_not_be_null", column="key"),
        _of("column_values_to_be_unique", "a key names one picture: make this shard again", column="key"),
        _of("column_values_to_be_in_set", column="status", value_set=list(STATUS)),
        *(
            _of("column_values_to_be_between", note, column=name, min_value=low, max_value=high)
            for name, low, high, note in (
                ("aesthetic", *SCORES, "the score is expected on the scale 1 to 10"),
                ("watermark", 0, 1, "a probability"),
                ("nsfw", 0, 1, "a probability"),
                ("similarity", -1, 1, "a cosine"),
            )
        ),
        *(_of("column_values_to_be_between", column=side, min_value=1) for side in ("width", "height")),
        _of(
            "column_values_to_match_regex",
            "run img2dataset with --compute_hash sha256, its default",
            column="sha256",
            regex="^[0-9a-f]{64}$",
        ),
        # Last: NaN and null pass a range
        *(
            _of(
                "column_values_to_not_be_null",
                f"filter.limits.{name}.missing = stop: give every row one, leave the row out, or say keep or drop"
                + (", or let `slam score` compute it (`score` in the profile)" if name == "aesthetic" else ""),
                column=name,
                **HAD,
            )
            for name in stops
        ),
    ]


def shards(config: Filter) -> Suite:
    """For the table with one row a shard: rows are conserved, keys are not shared.

    A tar may hold more than the statistics know of; it is listed. What they count and no row tells of is lost.
    """
    again = "the files of this shard do not belong together: make it again"
    known = {"ignore_row_if": "either_value_is_missing"}  # not every source has statistics
    most = {"rows": "count in stats", "downloaded": "successes in stats"}
    mixed = "two downloads were mixed: keys must be unique over all shards"
    return [
        _of("column_pair_values_to_be_equal", "rows were lost", column_A="rows", column_B="passed and rejected"),
        *(
            _of("column_pair_values_a_to_be_greater_than_b", again, column_A=a, column_B=b, or_equal=True, **known)
            for a, b in most.items()
        ),
        *(
            _of("column_pair_values_to_be_equal", again, column_A=s, column_B=f"{s} in stats", **known)
            for s in DOWNLOAD
        ),
        _of("column_values_to_be_in_set", mixed, column="keys of another shard", value_set=[NONE]),
    ]


def manifest(config: Filter) -> Suite:
    """For a run of the manifest's rows."""
    score = config.limits.aesthetic
    ends = score and {"min_value": score.min, "max_value": score.max}
    return [
        *(_of("column_values_to_not_be_null", column=name) for name in ("shard", "key", "caption", "split")),
        _of("column_values_to_be_unique", column="key"),
        _of("column_values_to_be_in_set", column="split", value_set=["train", "validation"]),
        *([_of("column_values_to_be_between", column="aesthetic", **ends)] if score else []),
        *([_of("column_values_to_be_unique", column="sha256")] if config.duplicates else []),
    ]


def latents(config: Filter) -> Suite:
    """For a shard of latents, a row per sample: the statistics of what is stored of it."""
    scaling = "is the VAE's scaling_factor right, and are these pictures?"
    return [
        _of("column_values_to_not_be_null", column="key"),
        _of("column_values_to_be_unique", column="key"),
        _of("column_values_to_be_in_set", "encode in fp32", column="finite", value_set=[True]),
        *(_of("column_values_to_not_be_null", column=name) for name in ("mean", "std")),  # as above
        *(
            _of("column_values_to_be_between", scaling, column=name, min_value=low, max_value=high)
            for name, (low, high) in SAMPLE.items()
        ),
    ]


def latent_shards(config: Filter) -> Suite:
    """For the table with one row a shard of latents: rows are conserved, all are of one shape and of unit variance."""
    equal = {"rows": "encoded and rejected", "encoded": "latents", "latents": "captions", "shape": "shape of the set"}
    return [
        *(_of("column_pair_values_to_be_equal", column_A=a, column_B=b) for a, b in equal.items()),
        *(
            _of(
                "column_values_to_be_between",
                "is the VAE's scaling_factor right?",
                column=n,
                min_value=low,
                max_value=high,
            )
            for n, (low, high) in SET.items()
        ),
    ]


OURS = (rows, shards, manifest, latents, latent_shards)
SUITES = {suite.__name__: suite for suite in OURS}
