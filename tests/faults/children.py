"""Processes to kill, started in a tenth of a second each: forks of one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# Imports alone: a fork after the first OpenMP region would hang.
PRELOAD = ["slam.training.loop", "slam.registry.mirror", "mlflow.server", "tests.faults.children"]
_context = multiprocessing.get_context("forkserver")


def start(target: Callable, *arguments: Any) -> BaseProcess:
    """`target`, a function of a module, in a process of its own."""
    server = forkserver._forkserver  # one a process: the tests of the filter leave theirs, which imported other things
    if server._preload_modules != PRELOAD:
        server._stop()
        server.set_forkserver_preload(PRELOAD)
    child = _context.Process(target=target, args=arguments, daemon=True)
    child.start()
    return child


def train(folder: Path, output: Path, fault: Callable[[], None] | None = None) -> None:
    """`python -m slam.training.loop FOLDER`, under `fault`, with what it says in the file `output`."""
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    torch.set_num_threads(1)
    if fault:
        fault()
    sys.argv = ["loop", str(folder)]
    runpy.run_module("slam.training.loop", run_name="__main__", alter_sys=True)


def serve(port: int, database: Path) -> None:
    """MLflow's own application over its own store, on 127.0.0.1."""
    os.environ |= {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{database}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": (database.parent / "artifacts").as_uri(),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "false",
    }
    from mlflow.server import app
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", port, app, threaded=True)


def feed(folder: Path, root: Path, uri: str) -> None:
    """`slam.registry.feed` as `slam train` starts it, with more haste."""
    from slam.registry import feed

    os.environ |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    feed.POLL, feed.LONGEST = 0.1, 0.5
    sys.exit(feed.main(str(folder), str(root)))
