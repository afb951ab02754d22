"""Which files were found to have their sha256, remembered, so that 400 GB are hashed once and not at every start.

The memory is a file beside the folder, `.NAME.verified.json`: {file: [size, mtime_ns, ctime_ns, sha256]}. A file that
was written to, replaced or touched since is hashed again, its times being others; so is every file when the memory
is removed. A disk that changes bytes by itself changes no time: remove the memory to look for that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from slam.errors import SlamError
from slam.files import verify, write_json

HASHERS = 8  # threads; a core hashes one to two GB/s


def verify_once(folder: Path, expected: Mapping[str, str], made_by: str) -> None:
    """Raises `SlamError` unless each file of `expected`, name in `folder` to sha256, has its sha256."""
    memory = folder.with_name(f".{folder.name}.verified.json")
    known = _read(memory)
    todo = [name for name, sha256 in expected.items() if known.get(name) != _state(folder / name, sha256, made_by)]

    def check(name: str) -> None:
        before = _state(folder / name, expected[name], made_by)
        verify(folder / name, expected[name], made_by)
        known[name] = before  # as it was before it was read: written to meanwhile, it is read again next time

    try:
        with ThreadPoolExecutor(HASHERS) as pool:
            list(pool.map(check, todo))
    finally:
        if todo:
            with suppress(OSError):  # a folder that is only read: then each start verifies
                write_json(memory, known)


def _state(file: Path, sha256: str, made_by: str) -> list:
    try:
        found = file.stat()
    except FileNotFoundError:
        raise SlamError(f"{file} does not exist: run `{made_by}` again") from None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, sha256]


def _read(memory: Path) -> dict:
    """What is remembered; nothing, where that cannot be read."""
    with suppress(OSError, ValueError):
        known = json.loads(memory.read_text(encoding="utf-8"))
        return known if isinstance(known, dict) else {}
    return {}
