"""Outputs are whole or absent: written beside their place, flushed to the disk, then renamed into it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slam.errors import SlamError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it when the block ends, removed when the block raises."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        _fsync(partial)
        partial.replace(path)
        _fsync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path`; takes its place when the block ends, removed when the block raises.

    A folder already at `path` stays until the new one is complete.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        _take_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def resumable_folder(path: str | Path, fingerprint: str) -> Iterator[Path]:
    """As `whole_folder`, but what a block that raised or was killed left is there for the next one to go on with.

    Unless that was of another `fingerprint`: then it is removed. Files in it that end in `.partial` are removed too.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    mark = partial / "fingerprint"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != fingerprint:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with whole_file(mark) as file:
            file.write_text(fingerprint, encoding="utf-8")
    for file in partial.glob("*.partial"):
        file.unlink()
    yield partial
    mark.unlink()
    _take_place(partial, path)


@contextmanager
def locked(file: str | Path, who: str) -> Iterator[None]:
    """One holder of `file` at a time: raises `SlamError`, naming `who` holds it, instead of waiting.

    The lock goes with its process, so a dead run leaves none.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SlamError(f"another {who}: wait for it, or end it") from None
        yield


def sweep(folder: str | Path) -> None:
    """Remove what a killed process left in `folder` of `whole_file` or `whole_folder`; nobody may be writing there."""
    for pattern in (".*.partial", ".*.old"):
        for left in Path(folder).glob(pattern):
            remove(left)


def remove(path: Path) -> None:
    """A file, a link, or a folder with what it holds."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _take_place(partial: Path, path: Path) -> None:
    """Flush the folder `partial` to the disk and rename it to `path`; a folder that was there goes."""
    for item in sorted(partial.rglob("*")):
        _fsync(item)
    _fsync(partial)
    if os.path.lexists(path):  # also a link to nowhere
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        path.rename(old)
        partial.rename(path)
        remove(old)
    else:
        partial.rename(path)
    _fsync(path.parent)


def write_json(path: str | Path, value: Any) -> None:
    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path, made_by: str) -> Any:
    """The JSON at `path`; `made_by` says which command makes it, for the error if it is missing or broken."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SlamError(f"{path} does not exist: run `{made_by}` first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SlamError(f"{path}: expected JSON, found {error}: delete it and run `{made_by}` again") from None


def sha256(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: str | Path, expected: str, made_by: str) -> None:
    """Raises unless the file's sha256 is `expected`."""
    path = Path(path)
    if not path.is_file():
        raise SlamError(f"{path} does not exist: run `{made_by}` again")
    found = sha256(path)
    if found != expected:
        raise SlamError(f"{path}: expected sha256 {expected}, found {found}: it changed on disk; run `{made_by}` again")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
