"""A small drawn data set, made once and copied by the tests that damage it."""

import shutil
from pathlib import Path

import pytest

from slam.config import Encode, Filter, Source
from slam.data.encode.stage import encode_stage
from slam.data.filter.stage import filter_stage
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
TINY = "teachers/tiny"


def contents(folder: Path) -> dict[str, bytes]:
    """The files of the stage `encode` that are a function of its inputs alone: all but the documents."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "docs"}


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


@pytest.fixture(scope="session")
def encoded(drawn, filtered, tmp_path_factory) -> Path:
    """The latents of `drawn` with the shipped VAE; not to be written to."""
    out = tmp_path_factory.mktemp("encoded") / "latents"
    encode_stage(ENCODE, TINY, drawn / "raw", filtered, out, FILTER)
    return out
