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
import pyarrow.parquet as pq

from slam.config import Filter
from slam.data import pages
from slam.data.expectations import NONE, Validation
from slam.data.records import DOWNLOAD, FOUND, MISSING, STATUS, Shard, read_raw, read_records
from slam.data.sources.img2dataset import NO_ROW
from slam.errors import SlamError
from slam.files import read_json, whole_folder, write_json
from slam.progress import progress

REASONS = (*DOWNLOAD, *FOUND, "aesthetics", "short_side", "aspect", "caption", "duplicate")
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
        rows = read_records(shard).to_pandas()
        problems += validation.check("rows", shard.name, rows[rows["detail"] != NO_ROW], index="key")
        records.append(conservation(shard, rows))
        keys.append(pd.DataFrame({"shard": shard.name, "key": rows["key"].unique()}))
        reason = reasons(rows, config)
        rejected = rejected.add(pd.Series(reason).value_counts(), fill_value=0)
        kept.append(rows[reason == ""].assign(shard=len(kept)))
    table = pd.DataFrame(records)
    table["keys of another shard"] = _shared_keys(pd.concat(keys)).reindex(table["shard"], fill_value=NONE).to_numpy()
    problems += validation.check("shards", "all-shards", table, index="shard")
    return Found(pd.concat(kept, ignore_index=True), rejected.reindex(REASONS), problems, validation)


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


def conservation(shard: Shard, rows: pd.DataFrame) -> dict:
    """One row of the table of shards: what the Parquet file, the statistics and the tar each say."""
    strange = rows["detail"] == NO_ROW
    stats = read_json(shard.stats, "img2dataset")
    wanted = ("count", "successes", *DOWNLOAD)
    if not isinstance(stats, dict) or not all(isinstance(stats.get(name), int) for name in wanted):
        raise SlamError(
            f"{shard.stats}: expected the numbers {', '.join(wanted)}, found {stats}: make this shard again"
        )
    status = rows.loc[~strange, "status"].value_counts()
    return {
        "shard": shard.name,
        "rows": len(rows) - int(strange.sum()),
        "success": int(status.drop(list(DOWNLOAD), errors="ignore").sum()),
        **{name: int(status.get(name, 0)) for name in DOWNLOAD},
        **{f"{name} in stats": stats[name] for name in wanted},
        "rows without a picture": _few(rows.loc[rows["status"] == MISSING, "key"]),
        "pictures without a row": _few(rows.loc[strange, "key"]),
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
