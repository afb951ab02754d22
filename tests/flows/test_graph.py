"""DVC's graph is the only list of stages."""

import yaml

from flows import graph
from tests.flows.conftest import REPOSITORY


def test_each_stage_comes_after_those_it_reads_from(project):
    assert graph.names(project()) == ["start", "middle", "last"]  # dvc.yaml lists them the other way round


def test_every_stage_of_the_repository_is_walked_in_the_order_of_the_data():
    names = graph.names(REPOSITORY)
    assert set(names) == set(yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"])
    assert names.index("source") < names.index("encode") < names.index("train") < names.index("evaluate")


def test_what_was_never_built_is_stale(project):
    assert set(graph.stale(project())) == {"start", "middle", "last"}
