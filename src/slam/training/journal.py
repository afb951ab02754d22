"""The journal: one line of JSON a training step, the local truth that trackers are fed from."""

from __future__ import annotations

import json
import os
from pathlib import Path

from slam.files import whole_file


class Journal:
    """Appends to `path`. Opened at `step`, it first drops the lines of later steps: they will be trained again."""

    def __init__(self, path: Path, step: int) -> None:
        kept = [line for line in read_journal(path) if line["step"] <= step]
        with whole_file(path) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self.file = path.open("a", encoding="utf-8")

    def write(self, lines: list[dict]) -> None:
        self.file.writelines(json.dumps(line) + "\n" for line in lines)
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


def read_journal(path: Path) -> list[dict]:
    """The journal's lines; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
