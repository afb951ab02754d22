import pytest

from slam.errors import SlamError
from slam.files import read_json, sha256, verify, whole_file, whole_folder, write_json


def test_a_file_that_fails_half_way_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), whole_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_fails_half_way_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "folder"
    with whole_folder(path) as partial:
        (partial / "a").write_text("old")
    with pytest.raises(RuntimeError), whole_folder(path) as partial:
        (partial / "a").write_text("new")
        raise RuntimeError
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_whole_folder_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "folder"
    for name in ("a", "b"):
        with whole_folder(path) as partial:
            assert not path.exists() or (path / "a").exists()
            (partial / name).write_text(name)
    assert [item.name for item in path.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [path]


def test_json_comes_back_as_it_was_written(tmp_path):
    value = {"ü": [1, 2.5, None]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json", "slam x") == value


def test_missing_and_broken_json_name_the_command_that_makes_it(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(SlamError, match="does not exist: run `slam x` first"):
        read_json(path, "slam x")
    path.write_bytes(b"\xff{")
    with pytest.raises(SlamError, match="expected JSON"):
        read_json(path, "slam x")


def test_verify_finds_one_flipped_bit(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    expected = sha256(path)
    # FIPS 180-2's test vector
    assert expected == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    verify(path, expected, "slam x")
    path.write_bytes(b"abb")
    with pytest.raises(SlamError, match=f"expected sha256 {expected}, found"):
        verify(path, expected, "slam x")
