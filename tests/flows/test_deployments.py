"""prefect.yaml: what it says, and what is said when it says something else."""

import shutil
from pathlib import Path

import pytest
import yaml

from flows.deployments import check
from slam.errors import SlamError
from tests.flows.conftest import REPOSITORY


@pytest.fixture
def file(tmp_path) -> Path:
    return Path(shutil.copy(REPOSITORY / "prefect.yaml", tmp_path))


def test_ours_is_one(file):
    check(file)


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ('{cron: "99 3 * * *"}', "schedule cron = '99 3 * * *': Invalid cron"),
        ('{cron: "every night"}', "cron = 'every night': Invalid cron"),
        ('{cron: "0 3 * * *", timezone: Mars/Olympus}', "Invalid timezone"),
        ("{interval: soon}", "interval = 'soon': "),
        ("{rrule: FREQ=YES}", "rrule = 'FREQ=YES': "),
        ("{at: 3}", "a schedule has one of cron, interval, rrule; found {'at': 3}"),
        ("often", "a schedule has one of cron, interval, rrule; found 'often'"),
    ],
)
def test_a_schedule_that_is_none_is_named(file, schedule, says):
    file.write_text(file.read_text().replace('{cron: "0 3 * * *", timezone: UTC}', schedule))
    with pytest.raises(SlamError) as error:
        check(file)
    assert "prefect.yaml: deployment slam-evaluate/nightly: " in str(error.value)
    assert says in str(error.value)


@pytest.mark.parametrize("text", ["deployments: [", "name: slam", "[]", "deployments: [{name: x}]", ""])
def test_a_file_of_another_form_is_told(file, text):
    file.write_text(text)
    with pytest.raises(SlamError, match="prefect.yaml: expected "):
        check(file)


def test_of_the_gpu_queue_one_run_goes_at_a_time():
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    queues = {(item["entrypoint"], item["name"]): item["work_pool"].get("work_queue_name") for item in deployments}
    assert {queue for (entrypoint, _), queue in queues.items() if "promote" not in entrypoint} == {"gpu"}
    assert queues["flows/promote.py:slam_promote", "default"] is None
