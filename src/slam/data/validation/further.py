"""A user's own expectations: the YAML file of `filter.expectations`, {suite: [{type, kwargs, notes}]}."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from slam.data.validation.suites import SUITES, Suite
from slam.errors import SlamError

FORM = "{rows: [{type: expect_column_values_to_not_be_null, kwargs: {column: url}, notes: what to do then}]}"
KEYS = {"type", "kwargs", "notes"}


def further(file: str | Path | None, columns: Mapping[str, Collection[str]]) -> dict[str, Suite]:
    """What `file` adds to each suite of `columns`, which says the columns of its tables.

    Raises `SlamError` for a file, a suite, a type, an argument or a column that is not there.
    """
    if file is None:
        return {name: [] for name in columns}
    path = Path(file)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SlamError(f"filter.expectations = {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SlamError(f"{path}: expected YAML, found {error}") from None
    if not isinstance(document, dict) or not all(isinstance(entries, list) for entries in document.values()):
        raise SlamError(f"{path}: expected the form {FORM}, found {document!r}")
    for name in document:
        if name not in SUITES:
            raise SlamError(f"{path}: {name!r} is no suite: expected {', '.join(SUITES)}")
    added = {name: document.get(name, []) for name in columns}
    for name, entries in added.items():
        for number, entry in enumerate(entries):
            _check(entry, f"{path}: {name}[{number}]", name, columns[name])
    return added


def _check(entry: Any, where: str, suite: str, columns: Collection[str]) -> None:
    from slam.data.validation.expectations import describe, named_columns

    if (
        not isinstance(entry, dict)
        or not {"type", "kwargs"} <= entry.keys() <= KEYS
        or type(entry["kwargs"]) is not dict
    ):
        raise SlamError(f"{where}: expected the keys type, kwargs and perhaps notes, found {entry!r}")
    try:
        describe(suite, [entry])
    except SlamError as error:
        raise SlamError(f"{where}: {error}") from None
    for column in sorted(named_columns(entry["kwargs"]) - set(columns)):
        close = difflib.get_close_matches(column, columns, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(columns)}"
        raise SlamError(f"{where}: {column!r} is no column of {suite}: {hint}")
