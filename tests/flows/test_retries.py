"""What is tried again: what may pass by itself, and nothing else."""

from urllib.error import URLError

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from prefect import flow, task

from flows.retries import REGISTRY
from slam.errors import SlamError
from slam.registry.server import NoAnswerError, is_transient

PASSING = [
    NoAnswerError("MLFLOW_TRACKING_URI does not answer"),
    ConnectionResetError("by peer"),
    TimeoutError(),
    URLError("no route"),
    MlflowException("too many requests at once", TEMPORARILY_UNAVAILABLE),
    MlflowException("the request failed"),
]
STAYING = [
    SlamError("version 9 does not exist"),
    MlflowException("no such version", RESOURCE_DOES_NOT_EXIST),
    FileNotFoundError("models/student"),
    ValueError("a bug"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_a_server_or_the_network_does_may_pass(error):
    assert is_transient(error)


@pytest.mark.parametrize("error", STAYING, ids=repr)
def test_a_mistake_and_a_bug_do_not(error):
    assert not is_transient(error)


@pytest.mark.slow
@pytest.mark.parametrize(("error", "tries"), [(PASSING[0], 4), (STAYING[0], 1), (STAYING[3], 1)], ids=repr)
def test_a_task_of_the_registry_is_tried_again_only_then(prefect_server, error, tries):
    tried = []

    @task(**REGISTRY | {"retry_delay_seconds": 0})
    def ask():
        tried.append(error)
        raise error

    @flow
    def asking():
        ask()

    with pytest.raises(type(error)):
        asking()
    assert len(tried) == tries
