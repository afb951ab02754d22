"""What the latents must be, checked when all are made: the suites `latents`, on each shard, and `latent_shards`.

The statistics were taken while encoding, so a shard of 8,192 samples is a small table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from slam.config import Filter
from slam.data.encode.plan import Job
from slam.data.encode.progress import SAMPLES, SHARDS, statistics, totals
from slam.data.validation import pages
from slam.data.validation.further import further
from slam.data.validation.suites import SUITES, Outcome, Suite
from slam.errors import SlamError

SHOWN = 10  # failed expectations in an error
SHEET = ("../decoded.png", "pictures above what is decoded of their latents")


def suites(config: Filter) -> dict[str, Suite]:
    """Ours, and what the file that `config` names adds. Raises `SlamError` for what is wrong in that file."""
    added = further(config.expectations, {"latents": SAMPLES, "latent_shards": SHARDS.names})
    return {name: SUITES[name](config) + more for name, more in added.items()}


def validate(
    folder: Path, jobs: Sequence[Job], entries: Sequence[dict], shape: Sequence[int], counts: dict, config: Filter
) -> None:
    """Check what is in the unfinished `folder`: a sidecar of `entries` for each job. Writes docs/.

    Raises `SlamError` naming the samples that are not as expected.
    """
    from slam.data.validation.expectations import check, describe  # in the one process that checks

    expected = suites(config)
    outcomes: dict[str, tuple[str, Outcome]] = {}
    table = []
    for (job, samples), entry in zip(statistics(folder, jobs), entries, strict=True):
        outcomes[job.name] = "latents", check("latents", expected["latents"], job.name, samples, "key")
        table.append(totals(folder, job, entry, samples, shape))
    shards = pa.Table.from_pylist(table, SHARDS)
    outcomes["all-shards"] = (
        "latent_shards",
        check("latent_shards", expected["latent_shards"], "all-shards", shards, "shard"),
    )
    problems = [problem for _, outcome in outcomes.values() for problem in outcome.problems]
    tables = (pages.Table(name, suite, found.problems, found.page) for name, (suite, found) in outcomes.items())
    described = {name: describe(name, suite) for name, suite in expected.items()}
    pages.write(folder / "docs", tables, described, counts, problems, [], "Latents", SHEET)
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        shown = [f"  {line}" for line in [*problems[:SHOWN], *more, f"every check: {folder / 'docs/index.html'}"]]
        raise SlamError("\n".join(["the latents were not accepted:", *shown]))
