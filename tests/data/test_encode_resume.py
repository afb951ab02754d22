"""Kills, other numbers of processes and full disks: the bytes are always the same."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from slam.data.encode.stage import encode_stage
from slam.errors import SlamError
from slam.files import locked
from tests.data.conftest import ENCODE, FILTER, TINY, contents

CHILD = """
import sys
from pathlib import Path
from slam.config import Encode, Filter
from slam.data.encode.stage import encode_stage
from slam.errors import SlamError
try:
    config, checks, teacher, *places = sys.argv[1:]
    checks = Filter.model_validate_json(checks)
    encode_stage(Encode.model_validate_json(config), teacher, *map(Path, places), checks)
except SlamError as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """In every process: on a CPU the last bits of a convolution depend on the number of its threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoded(one_thread, drawn, filtered, tmp_path_factory):
    """The latents of `drawn`, made by one process that nothing interrupted."""
    out = tmp_path_factory.mktemp("encoded") / "latents"
    encode_stage(ENCODE, TINY, drawn / "raw", filtered, out, FILTER)
    return out


def start(drawn, filtered, out, processes=1, **popen):
    """`slam encode` as a process of its own, in a session of its own."""
    config = ENCODE.model_copy(update={"processes": processes})
    places = [TINY, str(drawn / "raw"), str(filtered), str(out)]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, config.model_dump_json(), FILTER.model_dump_json(), *places],
        start_new_session=True,
        **popen,
    )


def finished(out):
    return sorted(file.stem for file in out.with_name(f".{out.name}.partial").glob("progress/*-*.json"))


def kill_after_a_shard(child, out):
    """SIGKILL to the whole tree as soon as `out` has a shard that is done."""
    while not finished(out):
        assert child.poll() is None
        time.sleep(0.001)
    tree = [child, *psutil.Process(child.pid).children(recursive=True)]
    for process in tree:
        process.kill()
    psutil.wait_procs(tree[1:], timeout=10)
    assert child.wait() == -signal.SIGKILL and not out.exists()


@pytest.fixture(scope="module")
def killed(drawn, filtered, tmp_path_factory):
    """What a run of one process left that was killed as soon as one shard was done."""
    out = tmp_path_factory.mktemp("killed") / "latents"
    kill_after_a_shard(start(drawn, filtered, out), out)
    return out.with_name(".latents.partial")


@pytest.fixture
def partial(killed, tmp_path):
    return shutil.copytree(killed, tmp_path / ".latents.partial")


@pytest.mark.slow
def test_a_killed_run_is_taken_up_where_it_was_and_equals_an_uninterrupted_one(
    partial, drawn, filtered, encoded, tmp_path
):
    out = tmp_path / "latents"
    files = [f"{name}.safetensors" for name in finished(out)]
    done = {file: (partial / file).stat().st_mtime_ns for file in files}
    assert 1 <= len(done) < len(list(encoded.glob("*.safetensors")))
    (partial / ".train-00009.safetensors.1.partial").write_text("what the killed run was writing")
    encode_stage(ENCODE, TINY, drawn / "raw", filtered, out, FILTER)
    assert {file: (out / file).stat().st_mtime_ns for file in done} == done  # not made again
    assert contents(out) == contents(encoded) and not partial.exists()


@pytest.mark.slow
def test_a_finished_shard_that_was_damaged_is_made_again(partial, drawn, filtered, encoded, tmp_path):
    (partial / "train-00000.safetensors").write_bytes(b"x")
    encode_stage(ENCODE, TINY, drawn / "raw", filtered, tmp_path / "latents", FILTER)
    assert contents(tmp_path / "latents") == contents(encoded)


@pytest.mark.slow
def test_what_another_configuration_left_is_not_taken_up(partial, drawn, filtered, tmp_path):
    encode_stage(
        ENCODE.model_copy(update={"resolution": 16}), TINY, drawn / "raw", filtered, tmp_path / "latents", FILTER
    )
    assert json.loads((tmp_path / "latents/index.json").read_text())["latent_shape"] == [4, 4, 4]


@pytest.mark.slow
def test_two_processes_share_the_shards_and_make_the_bytes_of_one(drawn, filtered, encoded, tmp_path):
    out = tmp_path / "latents"
    assert start(drawn, filtered, out, processes=2).wait() == 0
    assert contents(out) == contents(encoded)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_killed_and_taken_up_by_another_number_of_processes_the_bytes_are_the_same(
    before, after, drawn, filtered, encoded, tmp_path
):
    out = tmp_path / "latents"
    kill_after_a_shard(start(drawn, filtered, out, before), out)
    assert len(finished(out)) < len(list(encoded.glob("*.safetensors")))
    assert start(drawn, filtered, out, after).wait() == 0
    assert contents(out) == contents(encoded)


@pytest.mark.slow
def test_torchrun_on_two_machines_that_share_the_folder_makes_the_bytes_of_one(drawn, filtered, encoded, tmp_path):
    out = tmp_path / "latents"
    arguments = [ENCODE.model_dump_json(), FILTER.model_dump_json(), TINY, str(drawn / "raw"), str(filtered), str(out)]
    (tmp_path / "encode.py").write_text(CHILD)
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:29719", "--rdzv-id", "test"]
    machines = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *rendezvous]
            + [str(tmp_path / "encode.py"), *arguments]
        )
        for _ in range(2)
    ]
    assert [machine.wait(120) for machine in machines] == [0, 0]
    assert contents(out) == contents(encoded)


@pytest.mark.slow
def test_sigterm_stops_the_whole_tree_and_the_same_command_goes_on(drawn, filtered, encoded, tmp_path):
    out = tmp_path / "latents"
    child = start(drawn, filtered, out, processes=2)
    while not finished(out):
        assert child.poll() is None
        time.sleep(0.001)
    tree = psutil.Process(child.pid).children(recursive=True)
    child.terminate()
    assert child.wait(60) != 0 and not out.exists()
    assert not psutil.wait_procs(tree, timeout=10)[1]
    encode_stage(ENCODE, TINY, drawn / "raw", filtered, out, FILTER)
    assert contents(out) == contents(encoded)


@pytest.mark.slow
def test_a_second_run_on_the_same_folder_is_refused(drawn, filtered, tmp_path):
    out = tmp_path / "latents"
    with locked(tmp_path / ".latents.lock", "the test"), pytest.raises(SlamError, match="another `slam encode` is"):
        encode_stage(ENCODE, TINY, drawn / "raw", filtered, out, FILTER)
    encode_stage(ENCODE, TINY, drawn / "raw", filtered, out, FILTER)
    assert out.exists()


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_told_and_earlier_shards_and_outputs_stay(drawn, filtered, encoded, tmp_path):
    """A limit on a file's size stands for the full disk: both are an error of the write."""
    out = shutil.copytree(encoded, tmp_path / "latents")

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    bigger = ENCODE.model_copy(update={"seed": 1}).model_dump_json()  # another set, so nothing is taken up
    places = [TINY, str(drawn / "raw"), str(filtered), str(out)]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, bigger, FILTER.model_dump_json(), *places],
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert child.returncode == 1 and "Traceback" not in child.stderr
    assert "train-00000.safetensors cannot be written: File too large" in child.stderr
    assert contents(out) == contents(encoded)
    assert [file.name for file in (tmp_path / ".latents.partial/progress").iterdir()] == ["todo.json"]


def test_a_disk_that_is_full_before_anything_is_encoded_is_told(drawn, filtered, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(SlamError, match="no room left for .*latents: .*make room, then the same command goes on"):
            encode_stage(ENCODE, TINY, drawn / "raw", filtered, tmp_path / "latents", FILTER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "latents").exists()


def test_a_manifest_that_is_no_parquet_is_told(drawn, tmp_path):
    (tmp_path / "manifest.parquet").write_text("cut")
    with pytest.raises(SlamError, match="manifest.parquet: expected a whole Parquet file.*run `slam filter` again"):
        encode_stage(ENCODE, TINY, drawn / "raw", tmp_path, tmp_path / "latents", FILTER)
