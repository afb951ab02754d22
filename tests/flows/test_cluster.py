"""The filter as a Prefect flow on Dask."""

import pytest
import yaml

from flows import cluster
from slam import config, paths
from slam.data.filter.stage import filter_stage
from slam.data.source import source_stage
from tests.flows.conftest import REPOSITORY


@pytest.mark.slow
def test_two_dask_workers_under_prefect_make_the_same_manifest(prefect_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["profiles"]["tiny"]["source"] |= {"pictures": 100, "evaluation": 4, "shard": 50}
    params["profiles"]["tiny"]["filter"]["validation"] = 10
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    source_stage(config.load().source, paths.RAW, paths.EVALUATION)
    filter_stage(config.load().filter, paths.RAW, tmp_path / "one")
    counts = cluster.slam_filter.with_options(task_runner=cluster.runner(None, 2))()
    assert counts["rows"] == 100
    for name in ("manifest.parquet", "rejected.parquet", "counts.json", "histograms.png"):
        assert (paths.FILTERED / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
