"""Which rows of the filter's manifest make which shard of latents."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slam.errors import SlamError

SPLITS = ("train", "validation")
COLUMNS = ["shard", "split", "key", "caption", "sha256", "member", "offset"]


class Job(NamedTuple):
    """One shard to make."""

    file: str
    split: str
    rows: np.ndarray  # int64 [N], rows of the manifest, rising

    @property
    def name(self) -> str:
        return Path(self.file).stem


class Manifest:
    """The filter's manifest, read a row group at a time: memory holds the splits of all rows, and one group."""

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise SlamError(f"{file} does not exist: run `slam filter` first")
        try:
            self._file = pq.ParquetFile(file)
        except pa.ArrowInvalid as error:
            raise SlamError(f"{file}: expected a whole Parquet file, found {error}: run `slam filter` again") from None
        groups = range(self._file.num_row_groups)
        self._starts = np.cumsum([0] + [self._file.metadata.row_group(group).num_rows for group in groups])
        self._held: tuple[int, pa.Table] | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def plan(self, size: int) -> list[Job]:
        """The rows in their order, split by split, `size` to a shard.

        Raises `SlamError` for a split that is none of SPLITS.
        """
        splits = self._file.read(columns=["split"])["split"]
        jobs = []
        for split in SPLITS:
            rows = np.flatnonzero(pc.equal(splits, split).to_numpy(zero_copy_only=False))
            for number, start in enumerate(range(0, len(rows), size)):
                jobs.append(Job(f"{split}-{number:05d}.safetensors", split, rows[start : start + size]))
        if (planned := sum(len(job.rows) for job in jobs)) != len(self):
            found = ", ".join(map(str, pc.unique(splits).to_pylist()))
            raise SlamError(f"{len(self) - planned} rows are of no split: expected {', '.join(SPLITS)}, found {found}")
        return jobs

    def rows(self, job: Job) -> pa.Table:
        """The COLUMNS of the job's rows."""
        group = np.searchsorted(self._starts, job.rows, side="right") - 1
        parts = [
            self._group(int(number)).take(pa.array(job.rows[group == number] - self._starts[number]))
            for number in np.unique(group)
        ]
        return pa.concat_tables(parts)

    def _group(self, number: int) -> pa.Table:
        if self._held is None or self._held[0] != number:
            self._held = (number, self._file.read_row_group(number, columns=COLUMNS))
        return self._held[1]
