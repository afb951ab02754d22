"""What must not be trained on: removal lists of URLs and sha256, and the pictures of an evaluation set.

Nothing is normalised: a URL is removed if it is listed character for character, a sha256 in lower case.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from slam.data.pictures import EXTENSIONS, BrokenPicture, decode, phash
from slam.errors import SlamError
from slam.progress import progress

SHA256 = re.compile(r"[0-9a-f]{64}")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
COLUMNS = ("url", "sha256")  # of a list in Parquet, in any case


def removal(files: tuple[str, ...]) -> pa.Array:
    """The URLs and sha256 that the files list, each once. Raises `SlamError` naming the line that is neither."""
    found: set[str] = set()
    for file in files:
        path = Path(file)
        if not path.is_file():
            raise SlamError(f"filter.removal: {path} does not exist")
        entries = _parquet(path) if path.suffix == ".parquet" else _text(path)
        if not entries:
            raise SlamError(f"filter.removal: {path} lists nothing: expected URLs or sha256")
        found.update(entries)
    return pa.array(sorted(found), pa.string())


def _text(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise SlamError(f"{path}: expected text, a URL or sha256 a line, found {error}") from None
    for number, line in enumerate(lines, 1):
        if line and not (SHA256.fullmatch(line) or URL.fullmatch(line)):
            raise SlamError(
                f"{path}, line {number}: expected a URL or a sha256 (64 hexadecimal digits, lower case), found {line!r}"
            )
    return [line for line in lines if line]


def _parquet(path: Path) -> list[str]:
    try:
        names = [name for name in pq.read_schema(path).names if name.lower() in COLUMNS]
        if not names:
            raise SlamError(f"{path}: expected a column url or sha256, found {', '.join(pq.read_schema(path).names)}")
        table = pq.read_table(path, columns=names)
    except (OSError, pa.ArrowException) as error:
        raise SlamError(f"{path}: expected a whole Parquet file, found {error}") from None
    return [value for name in names for value in table[name].cast(pa.string()).to_pylist() if value]


class Evaluation(NamedTuple):
    """The pictures of an evaluation set: n."""

    sha256: list[str]  # n
    phash: np.ndarray  # uint64 [n]


def evaluation(folder: str | None) -> Evaluation | None:
    """Every picture in `folder` and below. Raises `SlamError` if there is none or one cannot be decoded."""
    if folder is None:
        return None
    root = Path(folder)
    files = sorted(p for p in root.rglob("*") if p.suffix.lower().removeprefix(".") in EXTENSIONS and p.is_file())
    if not files:
        raise SlamError(f"filter.decontaminate = {root}: expected a folder of pictures, found none there")
    digests, hashes = [], []
    for file in progress(files, "evaluation pictures"):
        content = file.read_bytes()
        digests.append(hashlib.sha256(content).hexdigest())
        try:
            hashes.append(phash(decode(content, str(file))))
        except BrokenPicture as error:
            raise SlamError(f"filter.decontaminate: {error}") from None
    return Evaluation(digests, np.array(hashes, dtype=np.uint64))
