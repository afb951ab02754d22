"""README's "Share the data", as written there: one clone builds and pushes, another pulls and computes nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from slam import paths
from tests.flows.conftest import REPOSITORY

pytestmark = pytest.mark.slow

PROJECT = ("params.yaml", "dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore", "src", "teachers")
BUILT = (paths.RAW, paths.EVALUATION, paths.SCORES, paths.FILTERED, paths.LATENTS)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def call(home):
    """Runs a program in a folder, as a user who has nothing but an identity for git; returns what it printed."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_", "AWS_"))}
    identity = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    caches = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "DVC_SITE_CACHE_DIR": str(home / "site")}
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
    env = {**outer, **identity, **caches, **keys, "PYTHONPATH": str(REPOSITORY / "src")}

    def run(folder: Path, command: str, *, with_slam: bool = True) -> str:
        program, *arguments = command.split()
        bin = Path(sys.executable).parent
        path = f"{bin}{os.pathsep}{env['PATH']}" if with_slam else "/usr/bin:/bin"
        known = [sys.executable, "-m", "dvc"] if program == "dvc" else [program]
        done = subprocess.run(
            [*known, *arguments], cwd=folder, env=env | {"PATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def built(tmp_path_factory, call) -> Path:
    """A clone whose data is built, of few pictures."""
    folder = tmp_path_factory.mktemp("first")
    for name in PROJECT:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        (folder / name).parent.mkdir(exist_ok=True)
        copy(REPOSITORY / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["profiles"]["tiny"]["source"] |= {"pictures": 120, "evaluation": 12, "shard": 60}
    params["profiles"]["tiny"]["filter"]["validation"] = 12
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    call(folder, "git init -q")
    call(folder, "git add .")
    call(folder, "git commit -qm project")
    call(folder, "dvc repro encode")
    return folder


@pytest.fixture
def bucket():
    """(URL of a bucket, address of the S3 server on this machine)."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="team")
    yield "s3://team/slam", endpoint
    server.stop()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for d in BUILT for p in (folder / d).rglob("*") if p.is_file()}


def share(built: Path, second: Path, call, remote: str, *options: str) -> Path:
    """What README says: the first clone's commands, then the second's; the second, which has no program `slam`."""
    call(built, f"dvc remote add --force --default team {remote}")
    for option in options:
        call(built, f"dvc remote modify team {option}")
    call(built, "dvc push")
    call(built, "git add .dvc/config dvc.lock")
    call(built, "git commit -qm data --allow-empty")
    call(second.parent, f"git clone -q {built} {second}")
    call(second, "dvc pull --with-deps encode", with_slam=False)
    said = call(second, "dvc repro encode", with_slam=False)
    assert [line for line in said.splitlines() if line.startswith(("Running", ">"))] == []
    assert said.endswith("Data and pipelines are up to date.\n")
    return second


def test_the_commands_are_those_of_the_readme():
    section = (REPOSITORY / "README.md").read_text().split("## Share the data")[1].split("##")[0]
    for command in (
        "dvc remote add --default team ",
        "dvc remote modify team endpointurl http",
        "dvc push && git add .dvc/config dvc.lock && git commit",
        "dvc pull --with-deps encode && dvc repro encode",
    ):
        assert command in section


def test_a_second_clone_has_the_data_from_a_folder_and_computes_nothing(built, call, tmp_path):
    second = share(built, tmp_path / "second", call, str(tmp_path / "remote"))
    assert bytes_of(second) == bytes_of(built)


def test_a_second_clone_has_the_data_from_s3_and_computes_nothing(built, call, tmp_path, bucket):
    url, endpoint = bucket
    second = share(built, tmp_path / "second", call, url, f"endpointurl {endpoint}")
    assert bytes_of(second) == bytes_of(built)


def test_a_damaged_file_in_the_second_clone_is_fetched_again_not_made_again(built, call, tmp_path):
    second = share(built, tmp_path / "second", call, str(tmp_path / "remote"))
    shard = next((second / paths.LATENTS).glob("train-*.safetensors"))
    whole = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "data/latents" in call(second, "dvc status encode", with_slam=False)
    call(second, "dvc pull --force --with-deps encode", with_slam=False)
    assert bytes_of(second) == bytes_of(built)
