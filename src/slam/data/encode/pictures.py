"""From rows of the manifest to squares of pixels, read and decoded in threads ahead of the network that takes them.

S: side in pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from slam.ahead import ahead
from slam.data.pictures import BrokenPicture, decode
from slam.data.records import BROKEN, Raw, contents
from slam.launch import cores

CHANGED = "changed"  # the picture's bytes are not those of its sha256
REASONS = (BROKEN, CHANGED)
AHEAD = 2  # batches


class Square(NamedTuple):
    """A picture as the VAE takes it."""

    pixels: np.ndarray  # uint8 [S, S, 3]
    width: int  # of the upright picture before the cut, pixels
    height: int


class Rejected(NamedTuple):
    """Why a sample is left out."""

    reason: str  # one of REASONS
    detail: str


def squares(rows: pa.Table, source: Raw, side: int, batch: int, threads: int) -> Iterator[Square | Rejected]:
    """One for each of `rows`, in their order. A picture that is no good costs itself alone.

    Raises `SlamError` when a shard of the source is not the one that the manifest means.
    """

    def square(found: tuple[str, str, str | None, bytes | BrokenPicture]) -> Square | Rejected:
        shard, key, expected, content = found
        if isinstance(content, BrokenPicture):
            return Rejected(BROKEN, str(content))
        # img2dataset takes the sha256 of what it downloaded and then, unless told otherwise, encodes the picture
        # again; of such a tar nothing but the picture's own decoding can be checked.
        if source.verbatim and expected and (digest := hashlib.sha256(content).hexdigest()) != expected:
            return Rejected(CHANGED, f"shard {shard}, key {key}: expected sha256 {expected}, found {digest}")
        try:
            image = decode(content, f"shard {shard}, key {key}")
        except BrokenPicture as error:
            return Rejected(BROKEN, str(error))
        return Square(centre_square(image, side), *image.size)

    found = _contents(rows, source)
    read = ahead(lambda _: next(found), range(len(rows)), depth=AHEAD * batch)
    return ahead(square, read, depth=AHEAD * batch, threads=threads)


def _contents(rows: pa.Table, source: Raw) -> Iterator[tuple[str, str, str | None, bytes | BrokenPicture]]:
    """(shard, key, expected sha256, the picture's bytes) of each row, each shard of the source opened once."""
    wanted = zip(*(rows[name].to_pylist() for name in ("shard", "key", "sha256", "member", "offset")), strict=True)
    for number, run in groupby(wanted, key=itemgetter(0)):
        shard, rows_of_it = source.shards[number], list(run)
        found = contents(shard, (row[3:] for row in rows_of_it))
        for (_, key, expected, *_), content in zip(rows_of_it, found, strict=True):
            yield shard.name, key, expected, content


def threads_of(processes: int) -> int:
    """Threads that decode, of each of `processes` on this machine: Pillow lets go of the interpreter while it works."""
    return min(16, max(1, cores() // processes))


def centre_square(image: Image.Image, side: int) -> np.ndarray:
    """uint8 [side, side, 3]: the short side resized to `side`, the centre cut out."""
    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS))
