"""A small drawn data set, made once and copied by the tests that damage it."""

import shutil
from pathlib import Path

import pytest

from slam.config import Encode, Filter, Source
from slam.data.filter import filter_stage
from slam.data.source import source_stage

SOURCE = Source(kind="shapes", pictures=150, evaluation=20, degraded=0.2, shard=50, seed=3)
FILTER = Filter(
    limits={
        "aesthetic": {"min": 6.0, "missing": "stop"},
        "short_side": {"min": 32, "missing": "drop"},
        "aspect": {"max": 3.0, "missing": "drop"},
        "caption": {"min": 3, "missing": "drop"},
    },
    survivors=0.5,
    validation=20,
)
ENCODE = Encode(resolution=32, batch=4, shard=10)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """raw/ and evaluation/; not to be written to."""
    folder = tmp_path_factory.mktemp("drawn")
    source_stage(SOURCE, folder / "raw", folder / "evaluation")
    return folder


@pytest.fixture(scope="session")
def filtered(drawn) -> Path:
    """The filter's output for `drawn`; not to be written to."""
    filter_stage(FILTER, drawn / "raw", drawn / "filtered")
    return drawn / "filtered"


@pytest.fixture
def raw(drawn, tmp_path) -> Path:
    """A copy of the shards, to be damaged."""
    return Path(shutil.copytree(drawn / "raw", tmp_path / "raw"))
