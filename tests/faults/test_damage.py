"""500 ways to damage a checkpoint: each is found and said, and the checkpoint before it is taken."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slam.training import checkpoint
from slam.training.plan import read_plan
from tests.faults import runs

MUTATIONS = 500
LAST, BEFORE = "step-000012", "step-000010"


def flip(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def zero(file: Path, draw: random.Random) -> None:
    """A page that never reached the disk."""
    content = bytearray(file.read_bytes())
    begin = draw.randrange(len(content)) // 512 * 512
    content[begin : begin + 512] = bytes(len(content[begin : begin + 512]))
    file.write_bytes(content)


def truncate(file: Path, draw: random.Random) -> None:
    os.truncate(file, draw.randrange(file.stat().st_size - 1))  # a manifest without its last newline is whole


def empty(file: Path, draw: random.Random) -> None:
    os.truncate(file, 0)


def extend(file: Path, draw: random.Random) -> None:
    with file.open("ab") as end:
        end.write(b"x" + draw.randbytes(draw.randrange(64)))


def delete(file: Path, draw: random.Random) -> None:
    file.unlink()


def another_files(file: Path, draw: random.Random) -> None:
    """Of the same checkpoint."""
    others = [path for path in file.parent.iterdir() if path.name != file.name]
    shutil.copy(draw.choice(sorted(others)), file)


def the_one_of_before(file: Path, draw: random.Random) -> None:
    shutil.copy(file.parent.with_name(BEFORE) / file.name, file)


def folder_in_its_place(file: Path, draw: random.Random) -> None:
    file.unlink()
    file.mkdir()


def link(file: Path, draw: random.Random) -> None:
    """To nowhere, to itself, to a folder, or to the same file of the checkpoint before."""
    file.unlink()
    file.symlink_to(draw.choice(["nowhere", file.name, "..", f"../{BEFORE}/{file.name}"]))


def edit(file: Path, draw: random.Random) -> None:
    """The manifest stays JSON, and in half of the cases has a sha256 that is right for its content."""
    file = file.with_name("manifest.json")
    manifest = json.loads(file.read_text())
    key = draw.choice(["step", "fingerprint", "files"])
    name = draw.choice(sorted(manifest["files"]))
    draw.choice(
        [
            lambda: manifest.pop(key),
            lambda: manifest.update({key: draw.choice([None, "x", 7, [], {"a": 1}])}),
            lambda: manifest.update(step=draw.choice([0, 10, 11, 13, -1, 12.5, "12"])),
            lambda: manifest.update(fingerprint="0" * 64),
            lambda: manifest["files"].update({name: {**manifest["files"][name], "sha256": "0" * 64}}),
            lambda: manifest["files"].update({name: draw.choice([None, {}, "x", []])}),
            lambda: manifest["files"].update({"more.safetensors": manifest["files"][name]}),
        ]
    )()
    if draw.random() < 0.5:
        manifest.pop("sha256")
        content = json.dumps(manifest, sort_keys=True).encode()
        manifest["sha256"] = hashlib.sha256(content).hexdigest()
    file.write_text(json.dumps(manifest, indent=2))


def another_value(file: Path, draw: random.Random) -> None:
    """What is JSON and no manifest."""
    content = draw.choice(["null", "[]", "{}", "7", '"x"', '{"sha256": 1}', "[" * 9999])
    file.with_name("manifest.json").write_text(content)


def swap_checkpoints(file: Path, draw: random.Random) -> None:
    """The folder holds the checkpoint before, whole."""
    shutil.rmtree(file.parent)
    shutil.copytree(file.parent.with_name(BEFORE), file.parent)


def no_folder(file: Path, draw: random.Random) -> None:
    shutil.rmtree(file.parent)
    draw.choice([lambda: file.parent.write_text("x"), lambda: file.parent.symlink_to("nowhere"), file.parent.mkdir])()


KINDS: list[Callable[[Path, random.Random], None]] = [
    *(flip, zero, truncate, empty, extend, delete, another_files, the_one_of_before, folder_in_its_place, link),
    *(edit, another_value, swap_checkpoints, no_folder),
]


@pytest.fixture
def damaged(undisturbed, tmp_path):
    """damaged(i): the run's folder after mutation number i of its last checkpoint."""

    def make(i: int, kind: Callable) -> Path:
        folder, draw = runs.copy(undisturbed, tmp_path / f"{i}-{kind.__name__}"), random.Random(i)
        files = sorted((folder / "checkpoints" / LAST).iterdir())
        kind(draw.choice(files), draw)
        return folder

    return make


@pytest.mark.parametrize("count", [2 * len(KINDS), pytest.param(MUTATIONS, marks=pytest.mark.slow)])
def test_each_mutation_of_a_checkpoint_is_found_and_the_one_before_is_taken(count, undisturbed, damaged, tally):
    fingerprint = read_plan(undisturbed).fingerprint
    for i in range(count):
        kind = KINDS[i % len(KINDS)]
        folder, said = damaged(i, kind), []
        tally.tried("damage to a checkpoint")
        newest = checkpoint.newest_whole(folder / "checkpoints", said.append, fingerprint)
        assert newest and newest.name == BEFORE, (folder, said)
        assert len(said) == 1 and LAST in said[0] and "Passing over" in said[0]
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_a_damaged_checkpoint_ends_as_if_it_were_none(kind, damaged, expected, tally):
    folder = damaged(KINDS.index(kind), kind)
    tally.tried("damage to a checkpoint")
    end = runs.run(folder)
    assert (end.code, "Traceback" in end.said) == (0, False), end.said
    assert "Passing over" in end.said
    assert runs.result(folder) == expected


@pytest.mark.slow
def test_a_damaged_old_checkpoint_stops_nobody(undisturbed, expected, tmp_path, tally):
    """Not even where its files are to be thinned."""
    *old, before, last = sorted(path.name for path in (undisturbed / "checkpoints").iterdir())
    assert (before, last) == (BEFORE, LAST)
    for name in old:
        folder = runs.copy(undisturbed, tmp_path / name)
        shutil.rmtree(folder / "checkpoints" / LAST)
        (folder / "checkpoints" / name / "manifest.json").write_text("{")
        tally.tried("damage to a checkpoint")
        end = runs.run(folder)
        assert (end.code, "Traceback" in end.said) == (0, False), (name, end.said)
        assert runs.result(folder) == expected


@pytest.mark.slow
def test_where_none_is_whole_the_run_stops_and_changes_nothing(undisturbed, expected, tmp_path, tally):
    folder = runs.copy(undisturbed, tmp_path / "run")
    root = folder / "checkpoints"
    for name in (BEFORE, LAST):
        (root / name / "student.safetensors").write_bytes(b"")
    journal, files = (folder / "journal.jsonl").read_bytes(), sorted(root.rglob("*"))
    tally.tried("damage to a checkpoint")
    end = runs.run(folder)
    assert (end.code, "Traceback" in end.said) == (1, False), end.said
    assert "can be gone on from" in end.said
    assert ((folder / "journal.jsonl").read_bytes(), sorted(root.rglob("*"))) == (journal, files)
    root.rename(folder / "elsewhere")  # as it says
    assert runs.run(folder).code == 0
    assert runs.result(folder) == expected
