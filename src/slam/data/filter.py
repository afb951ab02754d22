"""Stage `filter`: validate the shards' metadata, keep the rows worth training on, say why the others went.

Works on columns, a shard at a time; what is held over all shards is the survivors' rows.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slam.config import Filter
from slam.data import pages
from slam.data.expectations import NONE, STATUS, Validation
from slam.data.shards import REBUILD, Shard, pictures, read_raw
from slam.errors import SlamError
from slam.files import read_json, whole_folder, write_json
from slam.progress import progress

# What each column may be called, in any case; more than one: the first that is not empty in a row.
# The scores of LAION-Aesthetics 6+, laion2B-en-aesthetic and COYO; img2dataset's sizes, else LAION's.
NAMES = {
    "key": ("key",),
    "status": ("status",),
    "caption": ("caption", "text"),
    "aesthetic": ("aesthetic", "aesthetic_score", "aesthetics_score", "aesthetic_score_laion_v2"),
    "width": ("original_width", "width"),
    "height": ("original_height", "height"),
    "stored_width": ("width",),
    "stored_height": ("height",),
    "sha256": ("sha256",),
}
SIZES = ("width", "height", "stored_width", "stored_height")
TYPES = dict.fromkeys(NAMES, pa.string()) | dict.fromkeys(("aesthetic", *SIZES), pa.float64())
REASONS = ("failed_to_download", "failed_to_resize", "aesthetics", "short_side", "aspect", "caption", "duplicate")
MANIFEST = pa.schema(
    [("shard", pa.int32()), ("key", pa.string()), ("caption", pa.string()), ("width", pa.int32())]
    + [("height", pa.int32()), ("aesthetic", pa.float32()), ("sha256", pa.string()), ("split", pa.string())]
    + [("member", pa.string()), ("offset", pa.int64())]  # where the tar holds the picture
)


def filter_stage(config: Filter, raw: Path, out: Path) -> dict:
    """Write manifest.parquet, counts.json and docs/ into `out`; returns the counts.

    Raises `SlamError` when an expectation fails or too few rows survive: `out` is then not written, and the
    documents lie in a folder beside it whose name ends in `-failed`.
    """
    shards = read_raw(raw).shards
    failed = out.with_name(f"{out.name}-failed")
    with whole_folder(out) as partial:
        found = _read(shards, config)
        survivors, counts = _survivors(found)
        problems = found.problems or _shortage(counts, config)
        pages.write(partial / "docs", found.validation.build(partial / "docs"), counts, problems)
        if problems:
            with whole_folder(failed) as kept:
                shutil.copytree(partial / "docs", kept / "docs")
            raise SlamError(_complaint(problems, failed / "docs/index.html"))
        pq.write_table(manifest(survivors, config.validation), partial / "manifest.parquet", compression="zstd")
        write_json(partial / "counts.json", counts)
    if failed.exists():
        shutil.rmtree(failed)
    return counts


class Found(NamedTuple):
    """What is known when every shard was read."""

    kept: pd.DataFrame  # rows that pass by themselves, before duplicates are looked for
    rejected: pd.Series  # reason -> rows
    problems: list[str]
    validation: Validation


def _read(shards: list[Shard], config: Filter) -> Found:
    validation, problems, kept, records, keys = Validation(), [], [], [], []
    rejected = pd.Series(0, index=REASONS)
    for shard in progress(shards, "filter"):
        rows = read_rows(shard.parquet)
        problems += validation.check("rows", shard.name, rows, index="key")
        tar = pictures(shard.tar)
        records.append(conservation(shard, rows, tar))
        keys.append(pd.DataFrame({"shard": shard.name, "key": rows["key"].unique()}))
        reason = reasons(rows, config)
        rejected = rejected.add(pd.Series(reason).value_counts(), fill_value=0)
        passed = rows[reason == ""].merge(tar, on="key", how="left")
        kept.append(passed.assign(shard=len(kept), caption=passed["caption"].str.strip()))
    table = pd.DataFrame(records)
    table["keys of another shard"] = _shared_keys(pd.concat(keys)).reindex(table["shard"], fill_value=NONE).to_numpy()
    problems += validation.check("shards", "all-shards", table, index="shard")
    return Found(pd.concat(kept, ignore_index=True), rejected.reindex(REASONS), problems, validation)


def read_rows(parquet: Path) -> pd.DataFrame:
    """A shard's rows under our own column names (NAMES), and `short_side`, pixels: the least of the picture's sizes as
    it was found and as it is stored, for a small one may be stored enlarged and a large one shrunk.

    Raises `SlamError` for a file that is no Parquet, a column under none of its names, a value of another type.
    """
    try:
        names = pq.read_schema(parquet).names
        wanted = {ours: _find(names, theirs) for ours, theirs in NAMES.items()}
        table = pq.read_table(parquet, columns=sorted(set(sum(wanted.values(), []))))
    except (OSError, pa.ArrowException) as error:
        raise SlamError(f"{parquet}: expected a whole Parquet file, found {error}: {REBUILD}") from None
    columns = {}
    for ours, theirs in wanted.items():
        if not theirs:
            raise SlamError(
                f"{parquet}: expected a column {' or '.join(NAMES[ours])} (in any case), found {', '.join(names)}: "
                "img2dataset keeps a column of its input with --save_additional_columns"
            )
        columns[ours] = pc.coalesce(*(_cast(table[name], TYPES[ours], parquet, name) for name in theirs))
    columns["short_side"] = pc.min_element_wise(*(columns[size] for size in SIZES))
    return pa.table(columns).to_pandas()


def _find(names: list[str], theirs: tuple[str, ...]) -> list[str]:
    """The columns among `names` that are one of `theirs` in any case, in the order of `theirs`."""
    return [name for alias in theirs for name in sorted(names, reverse=True) if name.lower() == alias]


def _cast(column: pa.ChunkedArray, kind: pa.DataType, parquet: Path, name: str) -> pa.ChunkedArray:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid as error:
        raise SlamError(f"{parquet}: column {name}: expected {kind}, found {column.type}: {error}") from None


def reasons(rows: pd.DataFrame, config: Filter) -> np.ndarray:
    """For each row the first of REASONS for which it goes, or "" if it stays; duplicates are not looked for."""
    width, height = rows["width"], rows["height"]
    aspect = np.maximum(width, height) / np.minimum(width, height)
    conditions = {
        **{status: rows["status"] == status for status in STATUS[1:]},
        "aesthetics": ~(rows["aesthetic"] >= config.aesthetics),  # so written, NaN goes too
        "short_side": ~(rows["short_side"] >= config.short_side),
        "aspect": ~(aspect <= config.aspect),
        "caption": rows["caption"].str.strip().str.len().fillna(0) < max(config.caption, 1),
    }
    return np.select([np.asarray(c, dtype=bool) for c in conditions.values()], list(conditions), default="")


def conservation(shard: Shard, rows: pd.DataFrame, tar: pd.DataFrame) -> dict:
    """One row of the table of shards: what the Parquet file, the statistics and the tar each say."""
    stats = read_json(shard.stats, "img2dataset")
    wanted = ("count", "successes", *STATUS[1:])
    if not isinstance(stats, dict) or not all(isinstance(stats.get(name), int) for name in wanted):
        raise SlamError(f"{shard.stats}: expected the numbers {', '.join(wanted)}, found {stats}: {REBUILD}")
    status = rows["status"].value_counts()
    had = rows.loc[rows["status"] == "success", "key"]
    return {
        "shard": shard.name,
        "rows": len(rows),
        **{name: int(status.get(name, 0)) for name in STATUS},
        **{f"{name} in stats": stats[name] for name in wanted},
        "rows without a picture": _few(had[~had.isin(tar["key"])]),
        "pictures without a row": _few(tar.loc[~tar["key"].isin(had), "key"]),
    }


def _few(keys: pd.Series) -> str:
    """How many, and the first of them."""
    return f"{len(keys)}: {', '.join(keys.head(3).astype(str))}{', …' if len(keys) > 3 else ''}" if len(keys) else NONE


def _shared_keys(keys: pd.DataFrame) -> pd.Series:
    """Shard -> the keys that another shard has too; only shards that have some."""
    return keys[keys["key"].duplicated(keep=False)].groupby("shard")["key"].agg(_few)


def _survivors(found: Found) -> tuple[pd.DataFrame, dict]:
    """Rows in the order of (shard, key) without exact duplicates, of which the first stays; and the counts."""
    kept = found.kept.sort_values(["shard", "key"], kind="stable")
    repeated = kept["sha256"].duplicated()
    rejected = {reason: int(count) for reason, count in found.rejected.items()} | {"duplicate": int(repeated.sum())}
    survivors = kept[~repeated]
    counts = {"rows": sum(rejected.values()) + len(survivors), "rejected": rejected, "survivors": len(survivors)}
    return survivors, counts


def _shortage(counts: dict, config: Filter) -> list[str]:
    rows, survivors = counts["rows"], counts["survivors"]
    problems = []
    why = ", ".join(f"{reason} {count}" for reason, count in counts["rejected"].items() if count)
    if survivors < config.survivors * rows or not survivors:
        problems.append(
            f"filter.survivors = {config.survivors}: expected at least {config.survivors:.0%} of {rows} rows to "
            f"survive, found {survivors}; rejected: {why}: loosen the limits under `filter`, or mend the data"
        )
    elif survivors <= config.validation:
        problems.append(
            f"filter.validation = {config.validation}: expected more survivors than that, found {survivors} "
            f"of {rows} rows; rejected: {why}: lower it, or take more data"
        )
    return problems


def manifest(survivors: pd.DataFrame, validation: int) -> pa.Table:
    """The survivors as MANIFEST; the `validation` pictures of smallest sha256 are kept from training.

    A picture's own hash decides, so the same picture stays on its side when data is added, under whatever key.
    """
    smallest = survivors["sha256"].sort_values().index[:validation]
    split = np.where(survivors.index.isin(smallest), "validation", "train")
    return pa.Table.from_pandas(survivors.assign(split=split), MANIFEST, preserve_index=False)


def _complaint(problems: list[str], docs: Path) -> str:
    shown = problems[:10] + ([f"… and {len(problems) - 10} more"] if len(problems) > 10 else [])
    return "\n".join(["the data was not accepted:", *(f"  {p}" for p in shown), f"  every check: {docs}"])
