"""A child process tree: its exit code, its lines, and that nothing of it outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from slam import launch
from slam.launch import accelerate_launch, run

# A child in the group, and one in a session of its own, to which nobody passes SIGTERM on.
TREE = """
import os, subprocess, sys, time
subprocess.Popen(["sleep", "300"])
subprocess.Popen(["sleep", "301"], start_new_session=True)
print("ready", flush=True)
time.sleep(300)
"""
# A shell's background job ignores Ctrl-C, and so would what the tests start in one.
PARENT = """
import signal, sys
from slam import launch
signal.signal(signal.SIGINT, signal.default_int_handler)
launch.GRACE = 2.0
print(launch.run([sys.executable, "-c", sys.argv[1]]), flush=True)
"""


def start_parent(script: str = TREE) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """A process inside `run`, and everything below it once that says "ready"."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "ready\n"
    return parent, psutil.Process(parent.pid).children(recursive=True)


def all_gone(tree: list[psutil.Process], within: float = 20) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not [process for process in tree if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]:
            return True
        time.sleep(0.1)
    return False


def test_the_exit_code_is_the_childs():
    assert run(["sh", "-c", "exit 7"]) == 7
    assert run(["sh", "-c", "kill -9 $$"]) == -signal.SIGKILL


def test_both_streams_arrive_in_order_split_at_newlines_and_carriage_returns():
    lines = []
    script = (
        r"printf 'one\n'; printf '\r 10%%\r 20%%\n\n' >&2; printf 'last, without an end'; printf ' caf\303\251\377'"
    )
    assert run(["sh", "-c", script], lines.append) == 0
    assert lines == ["one", " 10%", " 20%", "last, without an end café\ufffd"]


def test_a_line_arrives_when_it_is_written_not_when_the_child_ends():
    arrivals = []
    run(
        [sys.executable, "-c", "import time; print('a'); time.sleep(1)"], lambda line: arrivals.append(time.monotonic())
    )
    assert time.monotonic() - arrivals[0] > 0.9


def test_variables_are_added_to_the_environment():
    lines = []
    run(["sh", "-c", "echo $SLAM_TEST $HOME"], lines.append, {"SLAM_TEST": "here"})
    assert lines == [f"here {os.environ['HOME']}"]


def test_an_exception_in_the_callback_stops_the_tree_and_goes_on(monkeypatch):
    monkeypatch.setattr(launch, "GRACE", 1.0)

    def refuse(line):
        seen.extend(set(psutil.Process().children(recursive=True)) - others)
        raise ValueError(line)

    others = set(psutil.Process().children(recursive=True))  # servers that other tests started
    seen: list[psutil.Process] = []
    with pytest.raises(ValueError, match="ready"):
        run([sys.executable, "-c", TREE], refuse)
    assert len(seen) >= 3
    assert all_gone(seen)


# It dies as under the kernel's out-of-memory killer; what it started holds the pipe.
FAILS = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
lines = "\\n".join(map(str, [child.pid, *range(1000), ""]))
os.write(1, lines.encode())  # in one piece, as fits in a pipe: another process writes there too
os.kill(os.getpid(), 9)
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(300)"
)


@pytest.mark.parametrize("talk", ["pass", "os.write(2, b'still here\\n')"], ids=["silent", "talking"])
def test_a_child_that_is_killed_is_not_waited_for_while_what_it_left_holds_the_pipe(talk):
    left = (
        "import os, signal, sys, time\n"
        "asked = []\n"  # a handler that prints may meet the print of the loop
        "signal.signal(signal.SIGTERM, lambda *_: asked.append(1))\n"
        "print('ready', flush=True)\n"
        f"for _ in range(300):\n    if asked:\n        break\n    {talk}\n    time.sleep(0.1)\n"
        "print('stopped', file=sys.stderr)\n"
    )
    lines, began = [], time.monotonic()
    assert run([sys.executable, "-c", FAILS, left], lines.append) == -signal.SIGKILL
    assert time.monotonic() - began < 15
    said = [line for line in lines if line != "still here"]
    assert said[1:] == [*map(str, range(1000)), "stopped"]
    assert not psutil.pid_exists(int(said[0])) or psutil.Process(int(said[0])).status() == psutil.STATUS_ZOMBIE


def test_a_child_that_closes_its_output_may_go_on():
    assert run([sys.executable, "-c", "import os, time; os.close(1); os.close(2); time.sleep(1)"], print) == 0


def test_a_signal_inside_popen_leaves_no_child(monkeypatch):
    begin, children = subprocess.Popen, []

    def interrupted(command, **rest):
        child = begin(command, **rest)
        if command[0] != "sleep":  # the warden
            return child
        children.append(psutil.Process(child.pid))
        raise SystemExit(143)

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(SystemExit, match="143"):
        run(["sleep", "300"])
    assert len(children) == 1
    assert all_gone(children, within=1)


def test_what_is_killed_after_the_grace_that_was_given_is_told(capfd):
    def refuse(line):
        raise ValueError(line)

    began = time.monotonic()
    with pytest.raises(ValueError, match="ready"):
        run([sys.executable, "-c", STUBBORN], refuse, grace=1.5)
    assert 1.5 < time.monotonic() - began < 15
    assert "killed 1 process still running 2 s after SIGTERM: what they had not" in capfd.readouterr().err


def test_nothing_is_told_of_those_that_end_in_time(capfd):
    with pytest.raises(ZeroDivisionError):
        run(["sh", "-c", "echo; echo line; exec sleep 300"], lambda line: 1 / 0)
    assert not capfd.readouterr().err


@pytest.mark.parametrize("grace", [None, 70.5])
def test_the_warden_waits_for_the_grace_and_five_seconds(grace, monkeypatch):
    monkeypatch.setattr(launch, "GRACE", 20.0)
    before = set(psutil.Process().children())
    with launch.started(["sleep", "300"], grace=grace) as child:
        started = set(psutil.Process().children()) - before
        assert [p.cmdline()[3] for p in started if p.pid != child.pid] == [str((grace or 20.0) + 5)]
        child.terminate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_to_the_parent_stops_the_whole_tree_first(number, code):
    parent, tree = start_parent()
    parent.send_signal(number)
    assert parent.wait(20) == code
    assert all_gone(tree, within=1)


def test_a_child_may_finish_its_work_after_sigterm(tmp_path):
    done = tmp_path / "checkpoint"
    slow_to_stop = f"""
import signal, sys, time
def save(number, frame):
    time.sleep(1)
    open({str(done)!r}, "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(300)
"""
    parent, tree = start_parent(slow_to_stop)
    parent.terminate()
    parent.wait(20)
    assert done.exists()
    assert all_gone(tree, within=1)


@pytest.mark.slow
def test_a_parent_that_is_killed_outright_leaves_no_orphan_not_even_in_a_session_of_its_own():
    parent, tree = start_parent()
    parent.kill()
    parent.wait()
    assert len(tree) >= 4  # the child, its two, and the warden
    assert all_gone([process for process in tree if process.name() != "sh"])


def test_a_child_that_is_killed_takes_all_it_started_with_it():
    """As when the kernel kills a launcher for want of memory: its workers, in sessions of their own, must not go on."""
    parent, tree = start_parent()
    child = next(process for process in tree if process.name().startswith("python"))
    child.kill()
    assert parent.stdout.readline() == f"{-signal.SIGKILL}\n"
    assert parent.wait(20) == 0
    assert all_gone(tree, within=1)


def test_the_environment_of_a_launch_on_several_machines_is_passed_on_as_it_is(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NCCL_SOCKET_IFNAME", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, f"{name} here")
    lines = []
    run(["sh", "-c", "echo $MASTER_ADDR,$MASTER_PORT,$NCCL_SOCKET_IFNAME,$CUDA_VISIBLE_DEVICES"], lines.append)
    assert lines == ["MASTER_ADDR here,MASTER_PORT here,NCCL_SOCKET_IFNAME here,CUDA_VISIBLE_DEVICES here"]


@pytest.fixture
def worker(tmp_path, monkeypatch) -> Path:
    """A module `worker` that joins accelerate, sums the ranks, and writes what it saw."""
    (tmp_path / "worker.py").write_text(
        "import os, sys, torch\n"
        "from accelerate import Accelerator\n"
        "accelerator = Accelerator()\n"
        "state = accelerator.state\n"
        "total = torch.tensor([state.process_index + 1.0])\n"
        "if state.num_processes > 1:\n"
        "    torch.distributed.all_reduce(total)\n"
        "saw = f'{state.num_processes} {total.item():g} {state.device.type} {state.mixed_precision} {sys.argv[1]}'\n"
        f"open(f'{tmp_path}/saw-{{state.process_index}}', 'w').write(saw)\n"
        "accelerator.end_training()\n"  # an exit while gloo's threads run may abort
        "sys.exit(int(sys.argv[2]) if state.process_index == 0 else 0)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    home = tmp_path / "home" / "accelerate"
    home.mkdir(parents=True)
    # A user's own file, which must not be read: with it, accelerate would look for machines that are not there.
    (home / "default_config.yaml").write_text("distributed_type: MULTI_GPU\nnum_machines: 7\nmixed_precision: bf16\n")
    monkeypatch.setenv("HF_HOME", str(home.parent))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_accelerate_starts_that_many_processes_on_the_cpu(worker, processes):
    assert accelerate_launch("worker", ["an argument", "0"], processes) == 0
    total = processes * (processes + 1) // 2
    for rank in range(processes):
        assert (worker / f"saw-{rank}").read_text() == f"{processes} {total} cpu no an argument"


@pytest.mark.slow
def test_torchrun_has_the_grace_that_was_given(worker):
    """As torchrun's own settings read it, from the variables that a launch hands down."""
    (worker / "worker.py").write_text(
        "from torch.distributed.launcher.api import LaunchConfig\n"
        f"open(f'{worker}/saw', 'w').write(str(LaunchConfig(1, 1, 1).shutdown_timeout))\n"
    )
    assert accelerate_launch("worker", [], grace=70.5) == 0
    assert (worker / "saw").read_text() == "71"


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_failed_worker_gives_its_exit_code_and_no_traceback_of_the_launcher(worker, processes, capfd):
    assert accelerate_launch("worker", ["x", "3"], processes) == 3
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_worker_that_is_killed_is_told_with_its_signal(worker, processes, capfd):
    script = (worker / "worker.py").read_text()
    killed = script.replace("accelerator.end_training()", "os.kill(os.getpid(), 9)")
    (worker / "worker.py").write_text(killed)
    assert accelerate_launch("worker", ["x", "0"], processes, "fp32") == 128 + 9
    said = capfd.readouterr().err
    assert "was killed by SIGKILL: often for want of memory" in said
    assert "Traceback" not in said
