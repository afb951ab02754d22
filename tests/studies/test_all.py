"""`make study`: parts side by side under DVC, and nothing left behind."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from studies.all import REPRO, log_of, run_parts

# Says that it has begun, and waits until the other one has too.
MEET = "touch begun-{0}; for i in $(seq 600); do [ -e begun-{1} ] && touch met-{0} && exit 0; sleep 0.1; done; exit 1"
pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A DVC project whose study has the given commands as stages; each lasts until its command ends."""
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True)
    Path("study").mkdir()

    def write(**commands: str) -> Path:
        stages = {name: {"cmd": command, "wdir": ".."} for name, command in commands.items()}
        Path("study/dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
        return Path("study")

    return write


def test_parts_run_side_by_side_and_one_that_fails_stops_no_other(project):
    folder = project(a=MEET.format("a", "b"), bad="echo out of luck; exit 3", b=MEET.format("b", "a"))
    assert run_parts(folder, ["a", "bad", "b"], jobs=2) == ["bad"]
    assert Path("met-a").exists() and Path("met-b").exists()
    assert "out of luck" in log_of(folder, "bad").read_text()


def test_sigterm_stops_every_part_with_all_its_processes(project):
    folder = project(a="touch begun-a; sleep 300", b="touch begun-b; sleep 300", c="touch begun-c")
    script = "from pathlib import Path; from studies.all import run_parts; run_parts(Path('study'), ['a', 'b', 'c'], 2)"
    repository = Path(__file__).parents[2]
    study = subprocess.Popen(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(repository), "PATH": "/usr/bin:/bin"}
    )
    deadline = time.monotonic() + 60
    while not (Path("begun-a").exists() and Path("begun-b").exists()):
        assert time.monotonic() < deadline and study.poll() is None
        time.sleep(0.1)
    tree = psutil.Process(study.pid).children(recursive=True)
    study.terminate()
    assert study.wait(60) == 143
    assert not psutil.wait_procs(tree, timeout=20)[1]
    assert not Path("begun-c").exists()
    assert subprocess.run([*REPRO, f"{folder}/dvc.yaml:c"]).returncode == 0  # no lock was left
