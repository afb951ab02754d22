"""What the latents must be, checked when all are made: the suites `latents` and `latent shards`, and their documents.

`latents` is run on each shard, on a row per sample; `latent shards` once, on a row per shard. The statistics were
taken while encoding, so a shard of 8,192 samples is a small table.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from slam.data import pages
from slam.data.encode_plan import Job
from slam.data.encode_progress import statistics, totals
from slam.data.expectations import Validation
from slam.errors import SlamError

# A VAE's scaling factor gives its latents about unit variance over a set (the tiny VAE: 0.98 to 1.00, Stable
# Diffusion's is made so). One sample may be a picture of one colour: then its standard deviation is a few hundredths,
# and its mean up to 2.
RANGES = {"mean": (-3.0, 3.0), "std": (0.005, 5.0), "spread": (0.0, 1.0)}  # of a sample; spread: of the posterior
SHARD_RANGES = {"mean": (-1.0, 1.0), "variance": (0.25, 4.0)}
EQUAL = {"rows": "encoded + rejected", "encoded": "latents", "latents": "captions", "shape": "shape of the set"}
SCALING = "is the VAE's scaling_factor right, and are these pictures?"
SHOWN = 10  # failed expectations in an error

Suite = list[dict[str, Any]]


def _of(kind: str, notes: str = "", **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": kwargs, "notes": notes}


def _between(ranges: dict[str, tuple[float, float]]) -> Suite:
    return [
        _of("column_values_to_be_between", SCALING, column=name, min_value=low, max_value=high)
        for name, (low, high) in ranges.items()
    ]


LATENTS: Suite = [
    _of("column_values_to_not_be_null", column="key"),
    _of("column_values_to_be_unique", column="key"),
    _of("column_values_to_be_in_set", "encode in fp32", column="finite", value_set=[True]),
    *(_of("column_values_to_not_be_null", column=name) for name in ("mean", "std")),  # NaN passes a range
    *_between(RANGES),
]
LATENT_SHARDS: Suite = [
    *(_of("column_pair_values_to_be_equal", column_A=a, column_B=b) for a, b in EQUAL.items()),
    *_between(SHARD_RANGES),
]


def validate(folder: Path, jobs: Sequence[Job], entries: Sequence[dict], shape: Sequence[int], counts: dict) -> None:
    """Check what is in the unfinished `folder`: a sidecar of `entries` for each job. Writes docs/.

    Raises `SlamError` naming the samples that are not as expected.
    """
    validation = Validation({"latents": LATENTS, "latent shards": LATENT_SHARDS})
    problems, table = [], []
    for (job, samples), entry in zip(statistics(folder, jobs), entries, strict=True):
        problems += validation.check("latents", job.name, samples, index="key")
        table.append(totals(folder, job, entry, samples, shape))
    problems += validation.check("latent shards", "all-shards", pd.DataFrame(table), index="shard")
    shutil.rmtree(folder / "docs", ignore_errors=True)
    pages.write(folder / "docs", validation.build(folder / "docs"), counts, problems)
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise SlamError("\n".join([*problems[:SHOWN], *more, f"All results: {folder / 'docs/index.html'}"]))
