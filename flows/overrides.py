"""Values that a run sets in params.yaml before anything starts. DVC builds what that file says, so they stay in it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from slam import config
from slam.errors import SlamError
from slam.files import whole_file


def settle(params: Path, profile: str | None, overrides: Mapping[str, Any]) -> tuple[str, str]:
    """Writes the choice of `profile`, and its `overrides` as {"train.steps": 100}, into the file `params`.

    Returns the profile's name and what changed as a diff, "" if nothing did. Comments and layout stay as they are. The
    result is judged before it is written: a mistake raises `SlamError`, and the file is as it was.
    """
    config.load(params, profile)
    text = params.read_text(encoding="utf-8")
    name = profile or yaml.safe_load(text)["profile"]
    asked = {("profile",): name} | {("profiles", name, *key.split(".")): value for key, value in overrides.items()}
    wanted, new = yaml.safe_load(text), text
    for keys, value in asked.items():
        if (changed := _set(wanted, keys, value)) != wanted:
            wanted, new = changed, _written(new, keys, value)
    config.parse(wanted["profiles"][name], f"{params}: profiles.{name}")
    if yaml.safe_load(new) != wanted:
        raise SlamError(
            f"{params}: {', '.join(overrides)} cannot be set for {name} alone: another profile shares it by an anchor;"
            " edit the file"
        )
    if new != text:
        with whole_file(params) as partial:
            partial.write_text(new, encoding="utf-8")
    lines = difflib.unified_diff(text.splitlines(), new.splitlines(), "before", str(params), n=0, lineterm="")
    return name, "\n".join(lines)


def _set(document: Any, keys: tuple[str, ...], value: Any) -> Any:
    """A copy of `document` with `value` at `keys`; sections that it lacks are made."""
    if not keys:
        return value
    section = document if isinstance(document, dict) else {}
    return {**section, keys[0]: _set(section.get(keys[0]), keys[1:], value)}


def _written(text: str, keys: tuple[str, ...], value: Any) -> str:
    """`text`, YAML, with `value` in place of what stands at `keys`, or as a new key of the section where it belongs."""
    where = ".".join(keys)
    node = yaml.compose(text)
    while keys and isinstance(node, yaml.MappingNode):
        child = next((child for name, child in node.value if name.value == keys[0]), None)
        if child is None:
            return _added(text, node, f"{keys[0]}: {_flow(_set(None, keys[1:], value))}")
        node, keys = child, keys[1:]
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        raise SlamError(f"{where} is a section of params.yaml: set its keys, as {where}.KEY")
    start, end = node.start_mark.index, node.end_mark.index
    blank = " " * (text[start - 1] == ":")  # of `key:`, whose value is nothing
    return text[:start] + blank + _flow(_set(None, keys, value)) + text[end:]


def _added(text: str, section: yaml.MappingNode, line: str) -> str:
    if section.flow_style:
        end = section.end_mark.index - 1  # its brace
        return text[:end] + ", " * bool(section.value) + line + text[end:]
    first = section.value[0][0].start_mark
    return text[: first.index] + line + "\n" + " " * first.column + text[first.index :]


def _flow(value: Any) -> str:
    """`value` on one line, as it may stand in block and in flow style."""
    return yaml.safe_dump([value], default_flow_style=True, width=float("inf")).strip()[1:-1]
