"""A folder of images with captions, in one of two habits.

Hugging Face's imagefolder: `metadata.jsonl`, `metadata.csv` or `metadata.parquet` with `file_name`, relative to it,
and `text` or `caption`, and scores if there are any. Else NAME.txt beside each NAME.jpg (.jpeg, .png, .webp).
Both may lie in folders below. Every picture of the folder is a row, and so is every name that the metadata gives:
one without a caption has none, and the filter says what becomes of it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from slam.config import Source
from slam.data.columns import NAMES, named, read_columns
from slam.data.pictures import EXTENSIONS
from slam.data.sources import listing
from slam.data.sources.listing import LISTING, open_pictures, records
from slam.errors import SlamError

__all__ = ["make", "open_pictures", "records"]

NEEDED = ("file", "caption")
KNOWN = {alias for aliases in NAMES.values() for alias in aliases}
MAX_CAPTION = 64 * 2**10  # bytes of a NAME.txt


def make(config: Source, raw: Path) -> dict:
    """List the pictures of config.path, in the order of their names, into `raw`; returns the counts."""
    folder = Path(config.path).absolute()
    if not folder.is_dir():
        raise SlamError(f"source.path = {folder}: expected a folder of images with captions, found none")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    images = [_name(path, folder) for path in files if path.suffix.lower()[1:] in EXTENSIONS]
    tables = [_metadata(path, folder) for path in files if path.name in READERS]
    rows = pa.concat_tables(tables) if tables else _beside(folder, images)
    if tables:
        told = set(rows["file"].to_pylist())
        rows = pa.concat_tables([rows, _rows({"file": [image for image in images if image not in told]})])
    if not len(rows):
        raise SlamError(f"source.path = {folder}: expected pictures ({', '.join(EXTENSIONS)}), found none")
    counts = listing.write(raw, "folder", folder, rows.sort_by("file"))
    return counts | {"without a caption": rows["caption"].null_count}


def _name(path: Path, folder: Path) -> str:
    """Relative to `folder`. One that is not UTF-8 is escaped, and then found missing, under a name that can be told."""
    return path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()


def _metadata(path: Path, folder: Path) -> pa.Table:
    rows = READERS[path.name](path)
    below = path.parent.relative_to(folder).as_posix()
    columns = {name: rows[name] for name in rows.column_names if name in LISTING.names and name != "key"}
    if below != ".":
        columns["file"] = pc.binary_join_element_wise(below, columns["file"], "/")
    return _rows(columns)


def _jsonl(path: Path) -> pa.Table:
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:  # bad UTF-8 too
            raise SlamError(f"{path}, line {number}: expected a JSON object, found {error}") from None
        if not isinstance(row, dict | None):
            raise SlamError(f"{path}, line {number}: expected a JSON object, found {line[:50]!r}")
        if row is not None:
            rows.append({name: value for name, value in row.items() if name.lower() in KNOWN})
    try:
        table = pa.table({name: [row.get(name) for row in rows] for name in dict.fromkeys(n for r in rows for n in r)})
    except (pa.ArrowException, TypeError) as error:
        raise SlamError(f"{path}: expected values of one type in each column, found {error}") from None
    return named(table, NEEDED, path)


def _csv(path: Path) -> pa.Table:
    try:
        table = pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
    except pa.ArrowException as error:
        raise SlamError(f"{path}: expected a table of comma separated values, found {error}") from None
    return named(table, NEEDED, path)


READERS = {
    "metadata.jsonl": _jsonl,
    "metadata.csv": _csv,
    "metadata.parquet": lambda path: read_columns(path, NEEDED),
}


def _beside(folder: Path, images: list[str]) -> pa.Table:
    """The pictures with the text beside them; one that is not UTF-8 or too long makes its row broken."""
    captions, faults = [], []
    for image in images:
        text = (folder / image).with_suffix(".txt")
        caption, fault = None, None
        if text.is_file():
            with text.open("rb") as file:
                content = file.read(MAX_CAPTION + 1)
            try:
                caption = content.decode()
            except UnicodeDecodeError:
                fault = f"{text.name} is not UTF-8"
            if len(content) > MAX_CAPTION:
                caption, fault = None, f"{text.name} has more than {MAX_CAPTION} bytes"
        captions.append(caption)
        faults.append(fault)
    columns = {"file": pa.array(images, pa.string()), "caption": pa.array(captions, pa.string())}
    rows = named(pa.table({"file_name": columns["file"], "caption": columns["caption"]}), NEEDED, folder)
    return _rows({"file": rows["file"], "caption": rows["caption"], "fault": pa.array(faults, pa.string())})


def _rows(columns: dict) -> pa.Table:
    """The columns of LISTING but the key."""
    count = len(columns["file"])
    fields = [field for field in LISTING if field.name != "key"]
    return pa.table([columns.get(f.name, pa.nulls(count, f.type)) for f in fields], schema=pa.schema(fields))
