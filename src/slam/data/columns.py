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
    "file": ("file_name",),  # Hugging Face's imagefolder, COCO
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
BREAKS = r" *[\t\n\x0b\x0c\r\x{85}\x{2028}\x{2029}][\t\n\x0b\x0c\r\x{85}\x{2028}\x{2029} ]*"


class ParquetError(SlamError):
    """The file is no Parquet, or not a whole one. `rows`: how many were asked for, 0 where that is not told either."""

    def __init__(self, message: str, rows: int = 0) -> None:
        super().__init__(message)
        self.rows = rows


def read_columns(parquet: Path, needed: tuple[str, ...], groups: tuple[int, int] | None = None) -> pa.Table:
    """The rows of a Parquet file, or of its row groups [from, to), as `named` has them. Raises `ParquetError` too."""
    rows = 0
    try:
        with pq.ParquetFile(parquet) as file:
            some = range(*(groups or (0, file.num_row_groups)))
            rows = sum(file.metadata.row_group(i).num_rows for i in some)
            wanted = find(file.schema_arrow, needed, parquet)
            table = file.read_row_groups(some, columns=sorted(set(sum(wanted.values(), []))))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ParquetError(f"{parquet}: expected a whole Parquet file, found {error}", rows) from None
    return named(table, needed, parquet)


def check(parquet: Path, needed: tuple[str, ...]) -> list[int]:
    """The rows of each row group, [] of a file whose footer cannot be read. Raises `SlamError` as `find` does."""
    try:
        with pq.ParquetFile(parquet) as file:
            find(file.schema_arrow, needed, parquet)
            return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    except (OSError, ValueError, pa.ArrowException):
        return []


def named(table: pa.Table, needed: tuple[str, ...], where: Path) -> pa.Table:
    """The columns under the names of NAMES, in TYPES, and `short_side`, the least of SIZES; null where there is none.

    NaN, a size that is no finite int32 and text that is not UTF-8 become null too. Raises `SlamError` for a column of
    `needed` that is under none of its names, and for a value of another type.
    """
    columns = {}
    for ours, theirs in find(table.schema, needed, where).items():
        casts = [_cast(table[name], TYPES[ours], where, name) for name in theirs]
        columns[ours] = pc.coalesce(*casts) if casts else pa.nulls(len(table), TYPES[ours])
    columns["caption"] = pc.utf8_trim_whitespace(pc.replace_substring_regex(columns["caption"], BREAKS, " "))
    columns["short_side"] = pc.min_element_wise(*(columns[size] for size in SIZES))
    return pa.table(columns)


def find(schema: pa.Schema, needed: tuple[str, ...], where: Path) -> dict[str, list[str]]:
    """Our name -> theirs, by NAMES. Raises `SlamError` where one of `needed` has none, or two are called the same."""
    if len(set(schema.names)) < len(schema.names):
        raise SlamError(f"{where}: expected columns of different names, found {', '.join(schema.names)}")
    words = [name for name in schema.names if name.lower() == VERDICT and _text(schema.field(name).type)]
    names = sorted((name for name in schema.names if name not in words), reverse=True)
    found = {ours: [n for alias in theirs for n in names if n.lower() == alias] for ours, theirs in NAMES.items()}
    for ours in needed:
        if not found[ours]:
            raise SlamError(
                f"{where}: expected a column {' or '.join(NAMES[ours])} (in any case), found {', '.join(schema.names)}"
            )
    return found


def _text(kind: pa.DataType) -> bool:
    return not (pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _cast(column: pa.ChunkedArray, kind: pa.DataType, where: Path, name: str) -> pa.ChunkedArray:
    try:
        if kind == pa.string():
            return _utf8(column.cast(kind, safe=False))
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = pc.if_else(pc.equal(column, ""), None, column)
        numbers = column.cast(pa.float64())
    except pa.ArrowException as error:
        raise SlamError(f"{where}: column {name}: expected {kind}, found {column.type}: {error}") from None
    told = pc.is_finite(numbers)
    if kind == pa.int32():
        told = pc.and_(told, pc.less(pc.abs(numbers), 2.0**31))
    return pc.if_else(told, numbers, None).cast(kind, safe=False)


def _utf8(text: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        text.validate(full=True)
        return text
    except pa.ArrowInvalid:
        return pa.chunked_array([[_decoded(value) for value in text.cast(pa.binary()).to_pylist()]], pa.string())


def _decoded(value: bytes | None) -> str | None:
    try:
        return value and value.decode()
    except UnicodeDecodeError:
        return None
