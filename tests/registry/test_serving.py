"""The champion behind a real `mlflow models serve`, in a Python that has no `slam`."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import psutil
import pytest
from PIL import Image

from slam.models.drawing import Painter
from slam.registry.champion import champion_folder
from slam.registry.promote import promote
from slam.stopping import stop_tree
from tests.registry.test_registry import register


@pytest.fixture
def served(finished, tmp_path):
    """The address of the served champion."""
    promote(register(finished), finished)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text("import sys\nsys.modules['slam'] = None  # not importable\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bin_folder = Path(sys.executable).parent
    command = [
        bin_folder / "mlflow",
        "models",
        "serve",
        "--model-uri",
        "models:/slam@champion",
        "--env-manager",
        "local",
    ]
    env = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{finished / 'mlflow.db'}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PYTHONPATH": str(tmp_path / "bare"),
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
    }
    with (tmp_path / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=tmp_path,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while not answers(f"{address}/ping"):
            assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "serve.log").read_text()[-3000:]
            time.sleep(0.5)
        yield address
    finally:
        stop_tree(psutil.Process(server.pid))


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except (URLError, OSError):
        return False


def ask(address: str, prompts: list, **params) -> tuple[int, dict]:
    body = json.dumps({"dataframe_records": [{"prompt": prompt} for prompt in prompts], "params": params}).encode()
    return post(address, body)


def post(address: str, body: bytes) -> tuple[int, dict]:
    request = Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def pictures(answer: dict) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(row["png"])))) for row in answer["predictions"]]


@pytest.mark.slow
def test_a_prompt_is_answered_with_the_pictures_of_slam_generate_and_nonsense_with_400_and_the_reason(served, finished):
    prompts = ["a large red circle", "a small blue square"]
    status, answer = ask(served, prompts, steps=2, seed=5, images=2, height=64, width=32)
    assert status == 200
    assert [row["prompt"] for row in answer["predictions"]] == [prompts[0]] * 2 + [prompts[1]] * 2
    ours = Painter(champion_folder(finished)).draw(prompts, steps=2, seed=5, images=2, height=64, width=32)
    for theirs, mine in zip(pictures(answer), ours, strict=True):
        np.testing.assert_array_equal(theirs, np.asarray(mine))

    for params, reason in {
        ("steps", 0): "steps = 0: expected 1 to 50",
        ("seed", -1): "seed = -1: expected 0 to",
        ("images", 1000): "images = 1000: expected 1 to 64",
        ("height", 33): "height = 33: expected a multiple of 8",
        ("guidance", 0.5): "guidance = 0.5: expected 1 to 100",
        ("steps", "many"): "steps",
    }.items():
        status, answer = ask(served, ["a red circle"], **dict([params]))
        assert status == 400, (params, status)
        assert reason in answer["message"]
    assert ask(served, [" "])[1]["message"].endswith("prompt 0 is empty: say what to draw")
    assert ask(served, [7])[0] == 400
    status, answer = post(served, json.dumps({"dataframe_records": [{"text": "a red circle"}]}).encode())
    assert (status, "prompt" in answer["message"]) == (400, True)
    assert post(served, b"{not json")[0] == 400
    assert ask(served, ["a red circle"], steps=1)[0] == 200  # still there
