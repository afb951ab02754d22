"""What the latents must be, checked when all are made: the suites `latents` and `latent shards`, and their documents.

`latents` is run on each shard, on a row per sample; `latent shards` once, on a row per shard. The statistics were
taken while encoding, so a shard of 8,192 samples is a small table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from slam.data.encode.plan import Job
from slam.data.encode.progress import statistics, totals
from slam.data.validation import pages
from slam.data.validation.expectations import Suite, check, described, expect
from slam.data.validation.further import further
from slam.errors import SlamError

# A VAE's scaling factor gives its latents about unit variance over a set (the tiny VAE: 0.98 to 1.00, Stable
# Diffusion's is made so). One sample may be a picture of one colour: then its standard deviation is a few hundredths,
# and its mean up to 2.
RANGES = {"mean": (-3.0, 3.0), "std": (0.005, 5.0), "spread": (0.0, 1.0)}  # of a sample; spread: of the posterior
SHARD_RANGES = {"mean": (-1.0, 1.0), "variance": (0.25, 4.0)}
EQUAL = {"rows": "encoded + rejected", "encoded": "latents", "latents": "captions", "shape": "shape of the set"}
SCALING = "is the VAE's scaling_factor right, and are these pictures?"
SAMPLE = ("key", "finite", *RANGES)  # columns of the rows that the suite `latents` is for
ABOUT = pages.About("Latents", "decoded.png", "pictures, and what their latents decode to")
SHOWN = 10  # failed expectations in an error


def _between(ranges: dict[str, tuple[float, float]]) -> Suite:
    return [
        expect("column_values_to_be_between", SCALING, column=name, min_value=low, max_value=high)
        for name, (low, high) in ranges.items()
    ]


LATENTS: Suite = [
    expect("column_values_to_not_be_null", column="key"),
    expect("column_values_to_be_unique", column="key"),
    expect("column_values_to_be_in_set", "encode in fp32", column="finite", value_set=[True]),
    *(expect("column_values_to_not_be_null", column=name) for name in ("mean", "std")),  # NaN passes a range
    *_between(RANGES),
]
LATENT_SHARDS: Suite = [
    *(expect("column_pair_values_to_be_equal", column_A=a, column_B=b) for a, b in EQUAL.items()),
    *_between(SHARD_RANGES),
]


def validate(
    folder: Path, jobs: Sequence[Job], entries: Sequence[dict], shape: Sequence[int], counts: dict, own: str | None
) -> None:
    """Check what is in the unfinished `folder`: a sidecar of `entries` for each job. Writes docs/.

    `own` is the user's file of further expectations. Raises `SlamError` naming the samples that are not as expected.
    """
    added = further(own, {"latents": SAMPLE})["latents"]
    suites = {"latents": LATENTS + added, "latent shards": LATENT_SHARDS}
    tables, problems, totalled = [], [], []

    def run(suite: str, name: str, rows: pa.Table, index: str) -> None:
        outcome = check(suite, suites[suite], name, rows, index)
        tables.append(pages.Table(name, suite, not outcome.problems, outcome.page))
        problems.extend(outcome.problems)

    for (job, samples), entry in zip(statistics(folder, jobs), entries, strict=True):
        run("latents", job.name, pa.Table.from_pandas(samples, preserve_index=False), "key")
        totalled.append(totals(folder, job, entry, samples, shape))
    run("latent shards", "all-shards", pa.Table.from_pylist(totalled), "shard")
    pages.write(folder / "docs", ABOUT, tables, described(suites), counts, problems)
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise SlamError("\n".join([*problems[:SHOWN], *more, f"All results: {folder / 'docs/index.html'}"]))
