"""Foreign Parquet columns under our own names: who calls a column what, in which type, and what an empty value is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slam.errors import SlamError

# What each column may be called, in any case; of several, the first that is not empty in a row.
# LAION-Aesthetics 6+, laion2B-en-aesthetic, COYO-700M, img2dataset; and our own names, for a manifest that comes back.
NAMES = {
    "key": ("key",),
    "status": ("status",),
    "detail": ("error_message",),
    "url": ("url",),
    "caption": ("caption", "text"),
    "aesthetic": ("aesthetic", "aesthetic_score", "aesthetics_score", "aesthetic_score_laion_v2"),
    "watermark": ("watermark", "pwatermark", "watermark_score"),
    "nsfw": ("nsfw", "punsafe", "nsfw_score_opennsfw2"),
    "similarity": ("similarity", "clip_similarity_vitb32"),
    "width": ("original_width", "width"),  # img2dataset's, else LAION's
    "height": ("original_height", "height"),
    "stored_width": ("width",),
    "stored_height": ("height",),
    "sha256": ("sha256",),
}
SCORES = ("aesthetic", "watermark", "nsfw", "similarity")
SIZES = ("width", "height", "stored_width", "stored_height")
TYPES = dict.fromkeys(NAMES, pa.string()) | dict.fromkeys(SCORES, pa.float32()) | dict.fromkeys(SIZES, pa.int32())
VERDICT = "nsfw"  # in LAION-2B-en a word (UNLIKELY, UNSURE, NSFW), which is no score
BREAKS = r"[\t\n\x0b\x0c\r\x{85}\x{2028}\x{2029}]+"


class ParquetError(SlamError):
    """The file is no Parquet, or not a whole one."""


def read_columns(parquet: Path, needed: tuple[str, ...], groups: tuple[int, int] | None = None) -> pa.Table:
    """The rows under the names of NAMES and in TYPES, with `short_side`, the least of SIZES; what is not there is null.

    `groups` are the row groups [from, to) to read. Raises `ParquetError`, and `SlamError` for a column of
    `needed` that is under none of its names or a value of another type.
    """
    try:
        with pq.ParquetFile(parquet) as file:
            wanted = _wanted(file.schema_arrow)
            check_needed(wanted, needed, file.schema_arrow.names, parquet)
            names = sorted(set(sum(wanted.values(), [])))
            table = file.read_row_groups(range(*(groups or (0, file.num_row_groups))), columns=names)
    except (OSError, pa.ArrowException) as error:
        raise ParquetError(f"{parquet}: expected a whole Parquet file, found {error}") from None
    columns = {}
    for ours, theirs in wanted.items():
        casts = [_cast(table[name], TYPES[ours], parquet, name) for name in theirs]
        columns[ours] = pc.coalesce(*casts) if casts else pa.nulls(len(table), TYPES[ours])
    columns["caption"] = one_line(columns["caption"])
    columns["short_side"] = pc.min_element_wise(*(columns[size] for size in SIZES))
    return pa.table(columns)


def _wanted(schema: pa.Schema) -> dict[str, list[str]]:
    """Our name -> theirs, in the order of NAMES."""
    words = [n for n in schema.names if n.lower() == VERDICT and not _number(schema.field(n).type)]
    names = sorted((name for name in schema.names if name not in words), reverse=True)
    return {ours: [n for alias in theirs for n in names if n.lower() == alias] for ours, theirs in NAMES.items()}


def _number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def check_needed(wanted: dict[str, list[str]], needed: tuple[str, ...], found: list[str], parquet: Path) -> None:
    for ours in needed:
        if not wanted[ours]:
            raise SlamError(
                f"{parquet}: expected a column {' or '.join(NAMES[ours])} (in any case), found {', '.join(found)}: "
                "img2dataset keeps a column of its input with --save_additional_columns"
            )


def one_line(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Stripped, and line breaks and tabs folded to a blank."""
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(text, BREAKS, " "))


def _cast(column: pa.ChunkedArray, kind: pa.DataType, parquet: Path, name: str) -> pa.ChunkedArray:
    """`column` as `kind`; NaN becomes null, and so does a size that is no finite int32."""
    try:
        if kind == pa.string():
            return column.cast(kind)
        numbers = column.cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise SlamError(f"{parquet}: column {name}: expected {kind}, found {column.type}: {error}") from None
    told = pc.is_finite(numbers)
    if kind == pa.int32():
        told = pc.and_(told, pc.less(pc.abs(numbers), 2.0**31))
    return pc.if_else(told, numbers, None).cast(kind, safe=False)
