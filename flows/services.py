"""`make up` and `make down`: the Prefect server, the MLflow server and a worker, on this machine alone.

python -m flows.services up|down     the variables PREFECT_PORT and MLFLOW_PORT choose the ports
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from flows import deployments
from slam.errors import SlamError
from slam.files import read_json, whole_file, write_json
from slam.stopping import stop_tree

HOST = "127.0.0.1"
PORTS = {"PREFECT_PORT": 4200, "MLFLOW_PORT": 5001}  # MLflow's own 5000 is taken on a Mac
POOL = "slam-pool"  # as in prefect.yaml
SERVICES = {"prefect", "mlflow", "worker"}
PATIENCE = 300.0  # seconds until a server answers: 20 is usual, a busy machine takes minutes
STATE = Path(".slam/services.json")  # [{"name", "pid", "started"}] of what `up` started
ENV = Path(".env")
HEAD = "# Written by `make up`, removed by `make down`. Load it with:  . ./.env\n"


def up(root: Path, ports: dict[str, int]) -> None:
    """Starts the services, registers the deployments of prefect.yaml, writes .env. Raises `SlamError` if it cannot."""
    running = {entry["name"] for entry in alive(root)}
    if running == SERVICES:
        print(f"Already up.\n{how_to_use(root)}")
        return
    if (root / STATE).exists():
        down(root)  # the rest of a crash
    if (root / ENV).exists() and not ours(root / ENV):
        raise SlamError(f"{root / ENV} is not one that `make up` wrote: move it away, then `make up` again")
    for name, port in ports.items():
        refuse_busy(name, port)
    deployments.check(root / "prefect.yaml")
    variables = environment(root, ports)
    try:
        start_all(root, ports, variables)
    except BaseException:
        down(root)
        raise
    with whole_file(root / ENV) as partial:
        partial.write_text(HEAD + "".join(map(export, variables.items())), encoding="utf-8")
    print(f"Up.\n{how_to_use(root)}")


def down(root: Path) -> None:
    """Stops exactly the processes that `up` started, as far as they still are the same ones, and their children."""
    for entry in reversed(recorded(root)):  # the worker before the server that it reports to
        if _runs(entry):
            print(f"stopping {entry['name']}", flush=True)
            stop_tree(psutil.Process(entry["pid"]))
        for process in orphans(root, entry["pid"]):
            print(f"stopping what {entry['name']} left", flush=True)
            process.kill()
    (root / STATE).unlink(missing_ok=True)
    if ours(root / ENV):
        (root / ENV).unlink()
    print("Down.")


def start_all(root: Path, ports: dict[str, int], variables: dict[str, str]) -> None:
    prefect, mlflow = (str(Path(sys.executable).with_name(name)) for name in ("prefect", "mlflow"))
    # No proxy for artifacts: a run on this machine writes them to the folder itself, with or without the server.
    store = ["--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}", "--no-serve-artifacts"]
    store += ["--default-artifact-root", (root / "mlartifacts").as_uri()]
    for name, command in {
        "prefect": [prefect, "server", "start", "--host", HOST, "--port", str(ports["PREFECT_PORT"])],
        "mlflow": [mlflow, "server", "--host", HOST, "--port", str(ports["MLFLOW_PORT"]), "--workers", "1", *store],
    }.items():
        start(root, name, command, variables)
    wait_for(root, "prefect", f"{variables['PREFECT_API_URL']}/health")
    wait_for(root, "mlflow", f"{variables['MLFLOW_TRACKING_URI']}/health")
    for command in (
        [prefect, "work-pool", "create", POOL, "--type", "process", "--overwrite"],
        [prefect, "--no-prompt", "deploy", "--all"],
        [prefect, "work-queue", "set-concurrency-limit", "gpu", "1", "--pool", POOL],
        [sys.executable, "-m", "flows.dead_runs"],
    ):
        done = subprocess.run(command, cwd=root, env=os.environ | variables, capture_output=True, text=True)
        if done.returncode:
            raise SlamError(f"`{shlex.join(command)}` failed:\n{done.stdout}{done.stderr}")
    start(root, "worker", [prefect, "worker", "start", "--pool", POOL, "--name", "slam-worker"], variables)


def start(root: Path, name: str, command: list[str], variables: dict[str, str]) -> None:
    """Leaves `command` running, its output in .slam/NAME.log, and records its pid and when it began."""
    print(f"starting {name}", flush=True)
    (root / STATE).parent.mkdir(exist_ok=True)
    with log_file(root, name).open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=root,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    entry = {"name": name, "pid": process.pid, "started": psutil.Process(process.pid).create_time()}
    write_json(root / STATE, [*alive(root), entry])


def alive(root: Path) -> list[dict]:
    """What `up` started and still runs; not a pid that another process has by now, which began at another time."""
    return [entry for entry in recorded(root) if _runs(entry)]


def recorded(root: Path) -> list[dict]:
    return read_json(root / STATE, "make up") if (root / STATE).exists() else []


def orphans(root: Path, session: int) -> list[psutil.Process]:
    """What a service of this folder that was killed, once the leader of `session`, has left running: MLflow's server
    is a child of what starts it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):  # ended meanwhile, or another user's
            if os.getsid(process.pid) == session and process.environ().get("SLAM_ROOT") == str(root):
                found.append(process)
    return found


def _runs(entry: dict) -> bool:
    try:
        process = psutil.Process(entry["pid"])
        return process.create_time() == entry["started"] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(root: Path, name: str, url: str) -> None:
    """Until `url` answers. Raises with the service's last lines when it has ended, or has not answered in time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and name in {entry["name"] for entry in alive(root)}:
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    last = "\n".join(log_file(root, name).read_text(errors="replace").splitlines()[-12:])
    raise SlamError(f"{name} does not answer at {url}; the end of {log_file(root, name)}:\n{last}")


def refuse_busy(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SlamError(f"port {port} is taken ({error.strerror}): choose another, make up {name}=NUMBER") from None


def environment(root: Path, ports: dict[str, int]) -> dict[str, str]:
    """What the services and a shell that loads .env have in common."""
    return {
        "SLAM_ROOT": str(root),
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_API_URL": f"http://{HOST}:{ports['PREFECT_PORT']}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{ports['MLFLOW_PORT']}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # nothing of ours is one
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def export(variable: tuple[str, str]) -> str:
    name, value = variable
    if name == "PATH":  # before the one that the shell has when it loads this
        return f'export PATH={shlex.quote(value.split(os.pathsep)[0])}:"$PATH"\n'
    return f"export {name}={shlex.quote(value)}\n"


def ours(env: Path) -> bool:
    return env.exists() and env.read_text(encoding="utf-8").startswith(HEAD)


def how_to_use(root: Path) -> str:
    address = dict(line.removeprefix("export ").split("=", 1) for line in (root / ENV).read_text().splitlines()[1:])
    return (
        f"  Prefect  {address['PREFECT_API_URL'].removesuffix('/api')}\n  MLflow   {address['MLFLOW_TRACKING_URI']}\n"
        "  . ./.env                                             # tells this shell where they are\n"
        "  prefect deployment run slam-train/default --watch    # the main job\n"
        "  make down                                            # stops them; their logs are in .slam/"
    )


def log_file(root: Path, name: str) -> Path:
    return root / STATE.parent / f"{name}.log"


def main(arguments: list[str]) -> None:
    try:
        if arguments == ["up"]:
            up(Path.cwd(), {name: int(os.environ.get(name) or default) for name, default in PORTS.items()})
        elif arguments == ["down"]:
            down(Path.cwd())
        else:
            raise SlamError("usage: python -m flows.services up|down")
    except SlamError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
