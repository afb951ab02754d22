"""One short training, and its undisturbed end."""

from functools import partial
from pathlib import Path

import pytest

from slam.training.plan import make_plan
from tests.faults import runs
from tests.faults.summary import tally  # noqa: F401
from tests.training.conftest import make_profile

STEPS = {"train.steps": 12, "train.checkpoint_every": 2, "train.log_every": 1, "train.keep": 4}


@pytest.fixture(scope="session")
def profile(random_teacher):
    return partial(make_profile, random_teacher)


@pytest.fixture(scope="session")
def begun(profile, latents, tmp_path_factory) -> Path:
    """A run's folder before its first step."""
    folder = tmp_path_factory.mktemp("begun")
    make_plan(profile(**STEPS), latents).write(folder)
    return folder


@pytest.fixture(scope="session")
def undisturbed(begun, tmp_path_factory) -> Path:
    """The folder of a run that nothing happened to."""
    folder = runs.copy(begun, tmp_path_factory.mktemp("undisturbed") / "run")
    assert runs.run(folder).code == 0
    return folder


@pytest.fixture(scope="session")
def expected(undisturbed) -> runs.Result:
    return runs.result(undisturbed)


@pytest.fixture
def fresh(begun, tmp_path) -> Path:
    return runs.copy(begun, tmp_path / "run")
