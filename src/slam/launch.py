"""One child process tree: its output streamed, signals passed on to all of it, nothing left behind.

`python -m slam.launch ...` is `accelerate launch ...` without the launcher's own traceback when a worker fails.
"""

from __future__ import annotations

import math
import os
import queue
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL
from typing import IO, Any

import psutil

from slam.errors import SlamError
from slam.stopping import GRACE, stop_all, stop_tree

POLL = 0.2  # seconds between two looks at whether a silent child still runs
LAST = 5.0  # seconds for the last lines, once all that wrote them has been stopped

TREE = "SLAM_TREE"  # variable of every process below a child: says whose it is, also when its parents are gone

# Waits for its standard input to close, which the kernel does however the parent dies; then stops the group named on
# the first line, and what the group started in sessions of its own. (Linux's PR_SET_PDEATHSIG would reach the direct
# child only, and macOS has no such thing.) torchrun has the same grace for its workers: 5 seconds more, for it to end.
_WARDEN = """
read -r group; read -r _
kill -s TERM -- "-$group"
sleep "$0"
kill -s KILL -- "-$group"
for process in /proc/[0-9]*; do
  grep -qs "$1" "$process/environ" && kill -s KILL "${process#/proc/}"
done
"""


def run(
    command: list[str],
    on_line: Callable[[str], None] | None = None,
    env: Mapping[str, str] | None = None,
    grace: float | None = None,
) -> int:
    """Runs `command` to its end and returns its exit code (-N when signal N killed it).

    `on_line` gets standard output and error line by line, split at newlines and carriage returns, without blank lines;
    with None the child writes where this process writes. `env` holds variables to add to this process's.

    The child leads a session of its own. SIGTERM, Ctrl-C or any other exception here sends SIGTERM to the whole tree,
    SIGKILL to what is left of it after `grace` seconds (by default GRACE), and goes on as that exception. If this
    process is killed outright, the tree gets the same.
    """
    if not on_line:
        with sigterm_raises(), started(command, env, grace) as child:
            return child.wait()
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    unbuffered = {**(env or {}), "PYTHONUNBUFFERED": "1"}  # a pipe makes Python hold lines back
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    with sigterm_raises():
        # text: universal newlines, \r ends a line too
        with started(command, unbuffered, grace, text=True, **pipe) as child:
            reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
            reader.start()
            # What a child that failed has left may hold the pipe: it is not read to its end before that is stopped.
            while not child.poll():
                with suppress(queue.Empty):
                    if (line := lines.get(timeout=POLL)) is None:
                        break
                    on_line(line)
            code = child.wait()
        reader.join(LAST)
        lines.put(None)
        for line in iter(lines.get, None):
            on_line(line)
        return code


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    """Puts each line that is not blank, and None after the last."""
    with stream:
        for line in stream:
            if line.strip():
                lines.put(line.rstrip())
    lines.put(None)


@contextmanager
def started(
    command: list[str], env: Mapping[str, str] | None = None, grace: float | None = None, **popen: Any
) -> Iterator[subprocess.Popen]:
    """Yields `command` running, the leader of a session of its own, with `env` added to this process's variables.

    A block that ends or raises before the child has ended stops its whole tree, as `run` does. So does a child that
    fails: a launcher that was killed would leave its workers behind. `popen` holds further arguments of
    `subprocess.Popen`.
    """
    mark, child, variables = uuid.uuid4().hex, None, {**os.environ, **(env or {})}
    grace = GRACE if grace is None else grace
    with _warden(mark, grace) as watch:
        try:
            child = subprocess.Popen(
                command, env={**variables, TREE: mark}, stdin=DEVNULL, start_new_session=True, **popen
            )
            watch(child.pid)
            yield child
        finally:
            if child and child.poll() is None:
                stop_tree(psutil.Process(child.pid), grace)
            if not child or child.wait():  # none: a signal cut Popen short, and the child that it started is nameless
                stop_all(_marked(mark), grace)


def accelerate_launch(
    module: str, arguments: list[str], processes: int = 1, key: str = "train.processes", grace: float | None = None
) -> int:
    """Runs `python -m module arguments` in `processes` processes under `accelerate launch`; returns the exit code.

    Without CUDA it runs on the CPU, and several processes talk through gloo. Raises `SlamError` when there are GPUs,
    but fewer than processes; `key` is the setting that says how many. `grace` is that of `run`.
    """
    import torch

    cuda = torch.cuda.is_available()
    if cuda and processes > torch.cuda.device_count():
        raise SlamError(
            f"{key} = {processes}, but this machine has {torch.cuda.device_count()} GPU(s): set {key} to at most that"
        )
    flags = {
        "config_file": Path(__file__).with_name("accelerate.yaml"),
        "num_processes": processes,
        "num_machines": 1,
        "main_process_port": 0,  # any free one
        "mixed_precision": "no",  # each stage has an autocast of its own
        "dynamo_backend": "no",
        "num_cpu_threads_per_process": max(1, torch.get_num_threads() // processes),
    }
    # accelerate's own --cpu starts one process, whatever their number; --multi_gpu starts them all, and the variable
    # keeps them on the CPU.
    kind = ["--multi_gpu"] if processes > 1 else [] if cuda else ["--cpu"]
    env = {} if cuda else {"ACCELERATE_USE_CPU": "true"}
    # torchrun's own grace for its workers, in whole seconds; a PyTorch that does not know the variable keeps to 30.
    env["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(math.ceil(GRACE if grace is None else grace))
    options = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    return run([sys.executable, "-m", "slam.launch", *kind, *options, "--module", module, *arguments], None, env, grace)


def cores() -> int:
    """Of this machine, those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM raises SystemExit(143) here, as Ctrl-C raises KeyboardInterrupt, unless someone else handles it."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _warden(mark: str, grace: float) -> Iterator[Callable[[int], None]]:
    """Yields a function that names the process group to stop if this process dies inside the block."""
    warden = subprocess.Popen(
        ["sh", "-c", _WARDEN, str(grace + 5), f"{TREE}={mark}"],
        stdin=subprocess.PIPE,
        stdout=DEVNULL,
        stderr=DEVNULL,
        text=True,
        start_new_session=True,
    )

    def watch(group: int) -> None:
        print(group, file=warden.stdin, flush=True)

    try:
        yield watch
    finally:
        warden.kill()
        warden.communicate()


def _marked(mark: str) -> list[psutil.Process]:
    """Every process that carries this mark of `started`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(TREE) == mark:
                found.append(process)
    return found


def main() -> int:
    """`accelerate launch`, which would print a traceback of its own under that of the worker that failed."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        launch_command(launch_command_parser().parse_args())
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        return _shell_code(failure.exitcode, f"the process of rank {rank}")
    except subprocess.CalledProcessError as error:
        return _shell_code(error.returncode, "the process")
    except SignalException as stopped:
        return 128 + stopped.sigval
    return 0


def _shell_code(code: int, who: str) -> int:
    """A process's exit code as shells give it: 128 + N when signal N killed it, which is told."""
    if code >= 0:
        return code
    advice = ": often for want of memory, which the kernel's log (dmesg) tells" if code == -signal.SIGKILL else ""
    print(f"{who} was killed by {signal.Signals(-code).name}{advice}", file=sys.stderr)
    return 128 - code


if __name__ == "__main__":
    sys.exit(main())
