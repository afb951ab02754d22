"""What each section of a YAML file of ours is: frozen, unknown keys refused, every fault told with its key."""

from __future__ import annotations

import difflib
import typing

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slam.errors import SlamError

Positive = typing.Annotated[int, Field(gt=0)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def validated(values: typing.Any, where: str, model: type[Frozen]) -> typing.Any:
    """`values` as a `model`. Raises `SlamError` with a line a fault: its key after `where`, what was found, what is
    allowed."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SlamError("\n".join(_explain(problem, where, model) for problem in error.errors())) from None


def _explain(problem: dict, where: str, model: type[Frozen]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _keys_at(problem["loc"][:-1], model)
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, 1)
        hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
        return f"{where}.{key} is not a key: {hint}"
    if problem["type"] == "missing":
        return f"{where}.{key} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}" if message.startswith(key + ".") else f"{where}.{key}: {message}"
    return f"{where}.{key} = {problem['input']!r}: {message}"


def _keys_at(location: tuple, model: typing.Any) -> list[str]:
    for part in location:
        model = model.model_fields[part].annotation
        options = [option for option in typing.get_args(model) if option is not type(None)]
        model = options[0] if options else model  # of `Limit | None`, Limit
    return list(model.model_fields)
