"""A team's servers: what mlflow/compose.yaml runs, on a real PostgreSQL and a real S3 API, without containers."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml
from mlflow import MlflowClient

from slam import paths
from slam.files import sha256
from slam.registry.champion import champion_folder
from slam.registry.promote import promote, rollback
from slam.registry.remeasure import record
from tests.registry.records import good_records
from tests.registry.test_moves import play, sixteen
from tests.registry.test_registry import register

REPOSITORY = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((REPOSITORY / "mlflow/compose.yaml").read_text())
WEIGHTS = Path("unet/diffusion_pytorch_model.safetensors")


def test_every_image_and_package_of_the_compose_file_is_pinned_as_tested():
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", (REPOSITORY / "requirements.lock").read_text(), re.M))
    for name, service in COMPOSE["services"].items():
        built = service.get("build", {}).get("dockerfile_inline", "")
        image = service.get("image") or re.search(r"^FROM (\S+)", built, re.M)[1]
        assert re.search(r":.*\d+\.\d+|:RELEASE\.", image), f"{name}: {image}"
        for package, version in re.findall(r"([\w-]+)==(\S+)", built):
            assert pins[package] == version
    assert COMPOSE["services"]["prefect"]["image"].split(":")[1].startswith(pins["prefect"])


def test_the_compose_file_opens_ports_to_this_machine_alone_and_holds_no_password():
    text = (REPOSITORY / "mlflow/compose.yaml").read_text()
    services = COMPOSE["services"]
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service.get("ports", ()))
    named = {key: value for service in services.values() for key, value in service.get("environment", {}).items()}
    secrets = [value for key, value in named.items() if re.search("PASSWORD|SECRET", key)]
    assert len(secrets) == 3
    assert all(value.startswith("${") for value in secrets)
    assert set(re.findall(r"\$\{(\w+):\?", text)) == {"POSTGRES_PASSWORD", "STORE_PASSWORD"}
    known = (REPOSITORY / "mlflow/compose.env.example").read_text()
    assert all(variable in known for variable in re.findall(r"\$\{(\w+)", text))


def test_what_the_compose_file_refers_to_is_in_it():
    services = COMPOSE["services"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= services.keys()
        assert {volume.split(":")[0] for volume in service.get("volumes", ())} <= COMPOSE["volumes"].keys()
        hosts = re.findall(r"(?:@|http://)([a-z]+):\d", str(service))
        assert set(hosts) - {"localhost"} <= services.keys()
    assert all("healthcheck" in services[name] for name in services["mlflow"]["depends_on"])


@pytest.fixture(scope="module")
def postgres():
    """The URI of a database on a PostgreSQL of our own."""
    if not (initdb := shutil.which("initdb")) or not shutil.which("postgres"):
        pytest.skip("PostgreSQL is not here: initdb and postgres are not on the PATH (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="slam-postgres-", dir="/tmp"))  # pytest's own are closed to other users
    other = {"user": "postgres"} if os.geteuid() == 0 else {}  # PostgreSQL refuses to be root
    if other:
        shutil.chown(folder, "postgres")
    run = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **other}
    data, port = folder / "data", free_port()
    subprocess.run([initdb, "-D", data, "-U", "slam", "--auth=trust", "--no-sync"], check=True, **run)
    server = subprocess.Popen(
        ["postgres", "-D", data, "-p", str(port), "-k", folder, "-c", "fsync=off", "-c", "listen_addresses=127.0.0.1"],
        **run,
    )
    try:
        wait(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), server)
        yield f"postgresql+psycopg2://slam@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def store():
    """An S3 API with the bucket `slam`; what a client needs to reach it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
    mine = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **mine)
    client.create_bucket(Bucket="slam")
    yield client, keys | {"MLFLOW_S3_ENDPOINT_URL": endpoint}
    server.stop()


@pytest.fixture(scope="module")
def team(postgres, store, tmp_path_factory):
    """The address of an MLflow server, started with the arguments of mlflow/compose.yaml."""
    folder, port = tmp_path_factory.mktemp("team"), free_port()
    mine = {"--host": "127.0.0.1", "--port": str(port), "--backend-store-uri": postgres, "--workers": "1"}
    mine["--allowed-hosts"] = "127.0.0.1:*"
    command = [
        f"{name}={mine.get(name, value)}" if value else name
        for name, _, value in (part.partition("=") for part in COMPOSE["services"]["mlflow"]["command"])
    ]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [Path(sys.executable).with_name(command[0]), *command[1:]],
            cwd=folder,
            env=os.environ | store[1] | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait(lambda: urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close(), server, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # it takes its time over a SIGTERM
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(answers, server: subprocess.Popen, log: Path | None = None) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            return answers()
        except OSError:
            said = log.read_text()[-3000:] if log else server.args
            assert server.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.3)


@pytest.mark.slow
def test_students_are_registered_promoted_measured_again_fetched_and_rolled_back(team, store, finished, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team)  # of the three variables the one that registration reads
    for name in store[1]:
        monkeypatch.delenv(name, raising=False)  # the server alone has the keys
    (finished / "mlflow.db").unlink()
    first, second = register(finished, 10.0), register(finished, 9.0)
    assert [promote(version, finished).alias for version in (first, second)] == ["champion", "champion"]
    record(second, good_records(9.5), finished)
    folder = champion_folder(finished)
    assert folder.is_relative_to(finished / ".slam")
    assert sha256(folder / WEIGHTS) == sha256(finished / paths.STUDENT / WEIGHTS)
    assert rollback(finished).version == first
    stored = {item["Key"] for item in store[0].list_objects_v2(Bucket="slam")["Contents"]}
    assert sum(key.endswith(f"student/{WEIGHTS}") for key in stored) == 2
    assert not (finished / "mlartifacts").exists()


@pytest.mark.slow
def test_of_promotions_at_once_on_one_server_exactly_one_wins(team, monkeypatch):
    client = MlflowClient(team)
    if client.search_registered_models("name = 'slam'"):
        client.rename_registered_model("slam", "before")
    sixteen(client, "s3://slam/none")
    play(team, 5, others={"before"})


@pytest.mark.slow
def test_prefect_makes_its_tables_in_the_database_of_the_compose_file(postgres, tmp_path):
    import psycopg2

    connection = psycopg2.connect(postgres.replace("+psycopg2", ""))
    connection.autocommit = True
    connection.cursor().execute(COMPOSE["configs"]["databases"]["content"])
    wanted = COMPOSE["services"]["prefect"]["environment"]["PREFECT_API_DATABASE_CONNECTION_URL"]
    address = postgres.split("@")[1].split("/")[0]
    url = re.sub(r":\$\{.*\}@postgres:5432", f"@{address}", wanted)
    env = os.environ | {"PREFECT_HOME": str(tmp_path), "PREFECT_API_DATABASE_CONNECTION_URL": url}
    upgrade = [Path(sys.executable).with_name("prefect"), "server", "database", "upgrade", "--yes"]
    done = subprocess.run(upgrade, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with psycopg2.connect(url.replace("+asyncpg", "")).cursor() as cursor:
        cursor.execute("SELECT count(*) FROM information_schema.tables WHERE table_name IN ('flow_run', 'deployment')")
        assert cursor.fetchone() == (2,)
