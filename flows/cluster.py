"""Stage `filter` as a Prefect flow, on a Dask cluster through prefect-dask: each shard is a task of its run.

    python -m flows.cluster [--scheduler tcp://HOST:8786] [--workers 2]

The workers report to Prefect: with a cluster, PREFECT_API_URL must be a server that all of them reach (`make up` and
`. ./.env` for one machine). `slam filter --engine dask` does the same without Prefect.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect_dask import DaskTaskRunner

from slam import config, paths
from slam.data.filter.stage import filter_stage
from slam.errors import SlamError


@task(task_run_name="{name}", cache_policy=NO_CACHE)
def work(name: str, function: Callable[[Any], Any], item: Any) -> Any:
    """One item of the filter's map: a shard, a table to be validated, the picture."""
    return function(item)


def run(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """An engine of the filter (see slam.data.filter.engines): a task for each item, on the flow's task runner."""
    runs = [work.submit(f"{function.__name__.strip('_')} {place}", function, item) for place, item in enumerate(items)]
    for future in as_completed(runs):
        yield future.result()


def runner(scheduler: str | None, workers: int) -> DaskTaskRunner:
    """On the cluster at `scheduler`, else on one of `workers` processes here."""
    if scheduler:
        return DaskTaskRunner(address=scheduler)
    local = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": logging.WARNING}
    return DaskTaskRunner(cluster_kwargs=local)


@flow(name="slam-filter")
def slam_filter(profile: str | None = None) -> dict:
    """The counts of the stage `filter` of that profile of params.yaml."""
    chosen = config.load(profile=profile)
    return filter_stage(chosen.filter, paths.RAW, paths.FILTERED, paths.SCORES if chosen.score else None, run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", help="of params.yaml; its key `profile` by default")
    parser.add_argument("--scheduler", help="tcp://HOST:8786; by default a cluster of --workers here")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    try:
        print(slam_filter.with_options(task_runner=runner(chosen.scheduler, chosen.workers))(chosen.profile))
    except SlamError as error:
        print(f"flows.cluster: {error}", file=sys.stderr)
        sys.exit(error.code)


if __name__ == "__main__":
    main()
