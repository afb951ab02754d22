"""Several processes, started by `slam train` or by another launcher: gloo on the CPU."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
import yaml

from slam.errors import SlamError
from slam.training import checkpoint
from slam.training.journal import read_journal
from slam.training.stage import train_stage, with_processes
from tests.training.test_training import assert_equal, assert_equal_up_to_rounding, in_process, metrics, state

LR = {"train.lr": 1e-5}  # so that rounding stays rounding


def assert_students_equal_up_to_rounding(one, other, step):
    one, other = (state(out, step)["student.safetensors"] for out in (one, other))
    for key, value in one.items():
        assert torch.allclose(value, other[key], atol=2 * step * 1e-5), key


@pytest.fixture
def place(profile, latents, tmp_path):
    """place(**changes): a folder with params.yaml and latents, in which `slam train` runs."""

    def make(**changes):
        values = profile(**LR, **changes).model_dump(mode="json")
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({"profile": "test", "profiles": {"test": values}}))
        shutil.copytree(latents, tmp_path / "data/latents", dirs_exist_ok=True)
        return tmp_path

    return make


def begin(command, folder, **env):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1", **env}
    with (folder / "output.txt").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=output, stderr=output
        )


def wait_for_steps(folder, child, steps):
    while len(read_journal(folder / "runs/train/journal.jsonl")) < steps:
        assert child.poll() is None, (folder / "output.txt").read_text()
        time.sleep(0.1)


def only_checkpoint(folder):
    """Its manifest, and that the journal ends where it was written."""
    (path,) = checkpoint.checkpoints(folder / "runs/train/checkpoints")
    manifest = checkpoint.read_manifest(path)
    assert len(metrics(folder / "runs/train")) == manifest["step"]
    return manifest


@pytest.mark.slow
def test_one_two_and_four_processes_are_equal_up_to_rounding_also_in_the_middle_of_a_run(profile, latents, tmp_path):
    one, two, four = (tmp_path / name for name in ("one", "two", "four"))
    in_process(profile(**LR), latents, one)
    train_stage(with_processes(profile(**LR), 2), latents, two)
    train_stage(profile(**LR, **{"train.processes": 4, "train.steps": 3}), latents, four)
    in_process(profile(**LR), latents, four)  # three steps of four processes, and three of one
    for other in (two, four):
        assert_equal_up_to_rounding(metrics(one), metrics(other))
        assert_students_equal_up_to_rounding(one, other, 6)
    processes = [checkpoint.read_manifest(path)["processes"] for path in checkpoint.checkpoints(four / "checkpoints")]
    assert processes == [4, 1]


@pytest.mark.nightly
def test_two_processes_that_are_interrupted_are_two_that_are_not_bit_for_bit(profile, latents, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    two = {"train.processes": 2, "train.emas": [0.9]}
    train_stage(profile(**two), latents, whole)
    train_stage(profile(**two, **{"train.steps": 3}), latents, parts)
    train_stage(profile(**two), latents, parts)
    assert_equal(state(whole, 6), state(parts, 6))
    assert metrics(whole) == metrics(parts)


def test_a_number_of_processes_that_the_batch_cannot_be_shared_by_is_refused(profile):
    with pytest.raises(SlamError, match=r"with 3 processes.* train\.batch = 8 must be a multiple .* = 3"):
        with_processes(profile(), 3)


@pytest.mark.slow
def test_sigterm_stops_both_processes_after_the_same_step_with_a_checkpoint(place):
    folder = place(**{"train.steps": 400, "train.checkpoint_every": 400})
    child = begin(["slam.cli", "train", "--num-processes", "2"], folder)
    wait_for_steps(folder, child, 4)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 143
    assert only_checkpoint(folder)["processes"] == 2
    output = (folder / "output.txt").read_text()
    assert "stopped by SIGTERM after step" in output and "Traceback" not in output


@pytest.mark.nightly
def test_two_machines_under_torchrun_train_together_and_stop_together(place):
    """Two agents of torchrun on this machine; a preemption of the second."""
    folder = place(**{"train.steps": 400, "train.checkpoint_every": 400})
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    command = ["torch.distributed.run", *flags, "-m", "slam.cli", "train"]
    agents = [begin(command, folder, CUDA_VISIBLE_DEVICES="") for _ in range(2)]
    try:
        wait_for_steps(folder, agents[0], 4)
        agents[1].send_signal(signal.SIGTERM)
        assert all(agent.wait(60) for agent in agents)
    finally:
        for agent in agents:
            agent.kill()
    assert only_checkpoint(folder)["processes"] == 2
    assert "stopped by SIGTERM after step" in (folder / "output.txt").read_text()
