"""The Great Expectations suites that data must meet. The only door to Great Expectations.

A suite is plain data, a list of `{"type": "expect_…", "kwargs": {…}, "notes": "what to do"}`, as a user's file holds
them too. Each table is an asset and a validation of its own: several batches on one asset collapse to one result in a
checkpoint, and a bad shard then passes.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read by the import below

import great_expectations as gx  # noqa: E402
import great_expectations.expectations as gxe  # noqa: E402
import pyarrow as pa  # noqa: E402
from great_expectations.render.renderer import (  # noqa: E402
    ExpectationSuitePageRenderer,
    ValidationResultsPageRenderer,
)
from great_expectations.render.view import DefaultJinjaPageView  # noqa: E402
from pydantic.v1 import ValidationError  # noqa: E402

from slam.config import Filter  # noqa: E402
from slam.data.filter.conservation import NONE  # noqa: E402
from slam.data.filter.limits import LIMITS  # noqa: E402
from slam.data.records import DOWNLOAD, STATUS, SUCCESS  # noqa: E402
from slam.errors import SlamError  # noqa: E402

SCORES = (-2.0, 12.0)  # the predictors are affine: nominally 1 to 10, with a little on either side
BIG = 2**23  # bytes of a table that is not left to Python's garbage collection, which takes a tenth of a second
EXAMPLES = 5  # values shown in the documents and in an error
HAD = {"row_condition": f'status=="{SUCCESS}"', "condition_parser": "pandas"}  # only these have a picture
NAMED = ("column", "column_A", "column_B", "column_list", "column_set")  # the arguments that name columns

# Scaled latents have about unit variance over a set; a picture of one colour has a standard deviation of a few
# hundredths and a mean of up to 2. `spread`: the posterior's own, 0.02 for the tiny VAE.
SAMPLE = {"mean": (-3.0, 3.0), "std": (0.005, 5.0), "spread": (0.0, 1.0)}
SET = {"mean": (-1.0, 1.0), "variance": (0.25, 4.0)}

Suite = list[dict[str, Any]]


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


class Outcome(NamedTuple):
    """Of one validation."""

    problems: list[str]  # a sentence for each expectation that failed
    page: str  # HTML


def check(name: str, suite: Suite, asset: str, table: pa.Table, index: str) -> Outcome:
    """Validate `table` (only the columns that `suite` names are read). `index`: the column that names a row."""
    context = _context()
    expectations = gx.ExpectationSuite(name=name, expectations=[_expectation(e, name) for e in suite])
    frame = _wide(table.select(_columns(suite, table.column_names, index))).to_pandas()
    source = context.data_sources.add_pandas(name)
    try:
        definition = source.add_dataframe_asset(name=asset).add_batch_definition_whole_dataframe("whole")
        batch = definition.get_batch({"dataframe": frame})
        outcome = batch.validate(
            expectations,
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": EXAMPLES,
                "unexpected_index_column_names": [index],
            },
        )
    finally:
        context.data_sources.delete(name)  # it keeps its tables in memory
    del frame, batch
    if table.nbytes > BIG:
        gc.collect()  # the library's objects hold each other, and so the table
    problems = [f"{asset}: {_sentence(r.to_json_dict(), index)}" for r in outcome.results if not r.success]
    page = DefaultJinjaPageView().render(ValidationResultsPageRenderer(run_info_at_end=True).render(outcome))
    assert len(outcome.results) == len(suite) and outcome.success == (not problems)
    return Outcome(problems, page)


def _wide(table: pa.Table) -> pa.Table:
    """Numbers in 64 bits: those of 32 Great Expectations compares one by one in Python."""
    wider = {pa.float32(): pa.float64(), pa.int32(): pa.int64()}
    return table.cast(pa.schema([field.with_type(wider.get(field.type, field.type)) for field in table.schema]))


def describe(name: str, suite: Suite) -> str:
    """A page, HTML, that says what the suite expects."""
    expectations = gx.ExpectationSuite(name=name, expectations=[_expectation(e, name) for e in suite])
    return DefaultJinjaPageView().render(ExpectationSuitePageRenderer().render(expectations))


def _columns(suite: Suite, there: list[str], index: str) -> list[str]:
    """Of the columns that are there, those that `suite` names, and `index`."""
    named = {index} | {name for e in suite for name in named_columns(e["kwargs"])}
    conditions = " ".join(str(e["kwargs"].get("row_condition", "")) for e in suite)
    return [name for name in there if name in named or re.search(rf"\b{re.escape(name)}\b", conditions)]


def named_columns(kwargs: Mapping[str, Any]) -> set[str]:
    found = [kwargs[key] for key in NAMED if key in kwargs]
    return {name for value in found for name in ([value] if isinstance(value, str) else value)}


@cache
def _context() -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    return context


def _expectation(entry: Mapping[str, Any], where: str) -> gxe.Expectation:
    """Raises `SlamError` for a type that does not exist and for arguments that it does not take."""
    name = "".join(word.title() for word in str(entry["type"]).split("_"))
    kind = getattr(gxe, name, None)
    if kind is None:
        raise SlamError(f"{where}: {entry['type']} is none of Great Expectations' expectations")
    try:
        return kind(**entry["kwargs"], **({"notes": entry["notes"]} if entry.get("notes") else {}))
    except (ValidationError, TypeError, ValueError) as error:
        raise SlamError(f"{where}: {entry['type']}: expected other kwargs than {entry['kwargs']}: {error}") from None


def _sentence(result: dict, index: str) -> str:
    config, found = result["expectation_config"], result["result"]
    hidden = ("batch_id", *HAD)
    told = ", ".join(f"{key} {value}" for key, value in config["kwargs"].items() if key not in hidden)
    note = f": {config['notes']}" if config.get("notes") else ""
    what = f"{config['type'].replace('_', ' ')} ({told})"
    if result["exception_info"].get("raised_exception", True) and not found:
        return f"{what} could not be evaluated: {result['exception_info']}"
    if "unexpected_count" not in found:
        return f"{what}: found {found.get('observed_value')}{note}"
    rows = [str(row[index]) for row in found.get("partial_unexpected_index_list", [])]
    values = found.get("partial_unexpected_list", [])
    examples = "; ".join(f"{index} {row}: {value!r}" for row, value in zip(rows, values, strict=False))
    return f"{what}: {found['unexpected_count']} of {found['element_count']} rows are not, e.g. {examples}{note}"
