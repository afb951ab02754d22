"""The journal: one line of JSON a training step, the local truth that trackers are fed from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import BinaryIO

from slam.errors import SlamError
from slam.files import whole_file


class Journal:
    """Appends to `path`. Opened at `step`, it first drops the lines of later steps: they will be trained again."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [line for line in read_journal(path) if line["step"] <= step]
        with whole_file(path) as partial:
            partial.write_bytes(b"".join(map(_encoded, kept)))
        self.file = path.open("ab", buffering=0)  # no buffer: what could not be written must not be tried again at exit

    def write(self, lines: list[dict]) -> None:
        """The lines are on the disk when it returns. Raises `SlamError` when the disk does not take them."""
        content = b"".join(map(_encoded, lines))
        try:
            while content:
                content = content[self.file.write(content) :]
            os.fsync(self.file.fileno())
        except OSError as error:
            raise SlamError(
                f"{self.path} could not be written ({error.strerror}): make room, or mend the disk; the same command"
                " then goes on from the newest checkpoint"
            ) from None

    def close(self) -> None:
        self.file.close()


class Tail:
    """Reads what another process appends to the journal `path`, which may also be replaced by a shorter one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: BinaryIO | None = None  # held open, so that no other file can have its inode

    def read(self) -> list[dict]:
        """The lines that are new since the last call; all of them after the journal was replaced."""
        try:
            if self.file is None or not os.path.samestat(self.path.stat(), os.fstat(self.file.fileno())):
                self.close()
                self.file = self.path.open("rb")
        except FileNotFoundError:
            return []
        begin = self.file.tell()
        content = self.file.read()
        whole = content.rfind(b"\n") + 1
        self.file.seek(begin + whole)  # a line that is still being written is read next time
        return _parsed(content[:whole])

    def close(self) -> None:
        if self.file:
            self.file.close()


def read_journal(path: Path) -> list[dict]:
    """The journal's lines by step, one for each: the last one written.

    A last line that a kill cut short is left out, and so is whatever else is no line, such as the zeros that a power
    loss can leave; no whole line is lost for it.
    """
    return _parsed(path.read_bytes()) if path.exists() else []


def _parsed(content: bytes) -> list[dict]:
    """Of bytes of which only what ends in a newline counts."""
    by_step = {line["step"]: line for raw in content.split(b"\n")[:-1] if (line := _decoded(raw))}
    return [by_step[step] for step in sorted(by_step)]


def _encoded(line: dict) -> bytes:
    return json.dumps(line, allow_nan=False).encode() + b"\n"


def _decoded(raw: bytes) -> dict | None:
    """None for what is no line. A whole line behind the rest of a torn one is found."""
    begin = raw.rfind(b'{"step":')
    try:
        line = json.loads(raw[begin:]) if begin >= 0 else None
    except ValueError:  # also of bytes that are no UTF-8
        return None
    return line if isinstance(line, dict) and isinstance(line["step"], int) else None
