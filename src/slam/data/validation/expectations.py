"""Validates tables against suites. The only door to Great Expectations.

A suite is plain data, a list of `{"type": "expect_…", "kwargs": {…}, "notes": "what to do"}`, as a user's file holds
them too. Each table is an asset and a validation of its own: several batches on one asset collapse to one result in a
checkpoint, and a bad shard then passes.

Importing it takes two seconds and 250 MB. So who does not always validate imports it inside a function.
"""

from __future__ import annotations

import atexit
import gc
import os
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read by the import below
gc.disable()  # all that the import makes stays: to look through it for garbage, then and at each check, costs a third

import great_expectations as gx  # noqa: E402
import great_expectations.expectations as gxe  # noqa: E402
import pyarrow as pa  # noqa: E402
from great_expectations.execution_engine import pandas_execution_engine  # noqa: E402
from great_expectations.render.renderer import (  # noqa: E402
    ExpectationSuitePageRenderer,
    ValidationResultsPageRenderer,
)
from great_expectations.render.view import DefaultJinjaPageView  # noqa: E402
from pydantic.v1 import ValidationError  # noqa: E402

from slam.data.validation.suites import HAD, Outcome, Suite  # noqa: E402
from slam.errors import SlamError  # noqa: E402

gc.freeze()
gc.enable()
atexit.register(gc.unfreeze)  # DuckDB would tell of leaks, were its types not collected at the end
# Bytes of a table up to which the library takes a hash of all its values, which nothing reads: a third of a check.
pandas_execution_engine.HASH_THRESHOLD = 0

BIG = 2**23  # bytes of a table that is not left to Python's garbage collection, which takes a tenth of a second
EXAMPLES = 5  # values shown in the documents and in an error
NAMED = ("column", "column_A", "column_B", "column_list", "column_set")  # the arguments that name columns


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
