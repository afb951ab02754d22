import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from slam.data.encode import _square, encode_stage
from slam.data.latents import Latents
from slam.data.pictures import decode
from slam.data.records import read_raw
from slam.errors import SlamError
from slam.files import write_json
from slam.models.diffusion import load
from tests.data.conftest import ENCODE


@pytest.fixture(scope="module")
def encoded(drawn, filtered, random_teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("encoded") / "latents"
    encode_stage(ENCODE, str(random_teacher), drawn / "raw", filtered, out)
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("split", ["train", "validation"])
def test_latents_are_those_of_the_manifests_pictures_in_its_order(drawn, filtered, encoded, random_teacher, split):
    rows = pd.read_parquet(filtered / "manifest.parquet").query("split == @split")
    data, model = Latents(encoded, split), load(random_teacher, parts=("vae", "tokenizer"))
    latents, input_ids = data.gather(np.arange(len(data)))
    assert len(data) == len(rows) and data.captions(np.arange(len(data))) == list(rows.caption)
    assert torch.equal(input_ids, model.tokenize(list(rows.caption)))
    tars = [shard.tar.read_bytes() for shard in read_raw(drawn / "raw").shards]
    for i in range(0, len(rows), 7):
        row = rows.iloc[i]
        at = tars[row["shard"]].index(row.key.encode() + b".png") + 512
        picture = decode(tars[row["shard"]][at : at + 4000], row.key)
        pixels = torch.tensor(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
        assert torch.allclose(model.encode(pixels)[0], latents[i], atol=2e-3)


def test_the_index_tells_all_that_training_must_know(encoded, random_teacher):
    index = json.loads((encoded / "index.json").read_text())
    assert index["latent_shape"] == [4, 8, 8] and index["scaling_factor"] == 0.5
    assert [shard["file"][:-12] for shard in index["shards"]][-1] == "validation-00001"
    for shard in index["shards"]:
        content = (encoded / shard["file"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard["bytes"], shard["sha256"])
    table = pq.read_table(encoded / "manifest.parquet").to_pandas()
    assert table.groupby("file").size().to_dict() == {shard["file"]: shard["count"] for shard in index["shards"]}
    assert {p.name for p in encoded.iterdir()} == {*table.file, "manifest.parquet", "index.json"}


def test_the_same_command_gives_the_same_bytes(drawn, filtered, encoded, random_teacher, tmp_path):
    encode_stage(ENCODE, str(random_teacher), drawn / "raw", filtered, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(encoded)


CHILD = """
import sys
from pathlib import Path
from slam.config import Encode
from slam.data.encode import encode_stage
encode_stage(Encode.model_validate_json(sys.argv[1]), sys.argv[2], *map(Path, sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def killed(drawn, filtered, random_teacher, tmp_path_factory):
    """The unfinished folder of a run that was killed as soon as one shard was done."""
    out = tmp_path_factory.mktemp("killed") / "latents"
    places = (str(place) for place in (random_teacher, drawn / "raw", filtered, out))
    child = subprocess.Popen([sys.executable, "-c", CHILD, ENCODE.model_dump_json(), *places])
    partial = out.with_name(".latents.partial")
    while not (partial / "done.json").exists():
        assert child.poll() is None
        time.sleep(0.001)
    child.kill()
    assert child.wait() == -signal.SIGKILL and not out.exists()
    return partial


@pytest.fixture
def resume(killed, drawn, filtered, random_teacher, tmp_path):
    """A copy of that folder, and the same command again."""
    partial = tmp_path / ".latents.partial"
    shutil.copytree(killed, partial)
    return partial, lambda config=ENCODE: encode_stage(
        config, str(random_teacher), drawn / "raw", filtered, tmp_path / "latents"
    )


@pytest.mark.slow
def test_a_killed_run_is_taken_up_where_it_was_and_equals_an_uninterrupted_one(resume, encoded, tmp_path):
    partial, again = resume
    finished = {file: (partial / file).stat().st_mtime_ns for file in json.loads((partial / "done.json").read_text())}
    assert 1 <= len(finished) < len(list(encoded.glob("*.safetensors")))
    (partial / ".train-00009.safetensors.1.partial").write_text("what the killed run was writing")
    again()
    assert {file: (tmp_path / "latents" / file).stat().st_mtime_ns for file in finished} == finished  # not made again
    assert contents(tmp_path / "latents") == contents(encoded) and not partial.exists()


@pytest.mark.slow
def test_a_finished_shard_that_was_damaged_is_made_again(resume, encoded, tmp_path):
    partial, again = resume
    (partial / "train-00000.safetensors").write_bytes(b"x")
    again()
    assert contents(tmp_path / "latents") == contents(encoded)


@pytest.mark.slow
def test_what_another_configuration_left_is_not_taken_up(resume, encoded, tmp_path):
    _, again = resume
    again(ENCODE.model_copy(update={"resolution": 16}))
    assert json.loads((tmp_path / "latents/index.json").read_text())["latent_shape"] == [4, 4, 4]


@pytest.fixture
def survivor(raw, filtered):
    """The copied tar that holds the first survivor to train on, and that survivor's row."""
    row = pd.read_parquet(filtered / "manifest.parquet").query("split == 'train'").iloc[0]
    return read_raw(raw).shards[row["shard"]].tar, row


def flip(tar, position):
    content = bytearray(tar.read_bytes())
    content[position] ^= 1
    tar.write_bytes(content)


def test_a_flipped_bit_in_a_picture_is_found_and_nothing_is_left(survivor, raw, filtered, random_teacher, tmp_path):
    tar, row = survivor
    flip(tar, row.offset + 512 + 60)
    with pytest.raises(SlamError, match=f"shard {tar.stem}, key {row.key}: expected sha256 {row.sha256}, found"):
        encode_stage(ENCODE, str(random_teacher), raw, filtered, tmp_path / "latents")
    assert not (tmp_path / "latents").exists()


def test_in_shards_that_were_encoded_again_a_broken_picture_is_found_by_decoding(
    survivor, raw, filtered, random_teacher, tmp_path
):
    tar, row = survivor
    write_json(raw / "index.json", json.loads((raw / "index.json").read_text()) | {"verbatim": False})
    encode_stage(ENCODE, str(random_teacher), raw, filtered, tmp_path / "latents")
    flip(tar, row.offset + 512 + 1)  # of the PNG signature
    with pytest.raises(SlamError, match=f"shard {tar.stem}, key {row.key}: expected a whole JPEG, PNG or WebP"):
        encode_stage(ENCODE, str(random_teacher), raw, filtered, tmp_path / "again")


def test_a_tar_that_was_replaced_is_noticed(survivor, raw, filtered, random_teacher, tmp_path):
    tar, row = survivor
    tar.write_bytes(tar.read_bytes()[512:])
    with pytest.raises(SlamError, match=f"expected {row.member} at byte {row.offset}.*run `slam filter` again"):
        encode_stage(ENCODE, str(random_teacher), raw, filtered, tmp_path / "latents")


def test_a_missing_manifest_and_an_odd_resolution_are_told(drawn, filtered, random_teacher, tmp_path):
    with pytest.raises(SlamError, match="manifest.parquet does not exist: run `slam filter` first"):
        encode_stage(ENCODE, str(random_teacher), drawn / "raw", tmp_path, tmp_path / "latents")
    odd = ENCODE.model_copy(update={"resolution": 33})
    with pytest.raises(SlamError, match="encode.resolution = 33 must be a multiple of 4"):
        encode_stage(odd, str(random_teacher), drawn / "raw", filtered, tmp_path / "latents")


def test_the_short_side_is_resized_and_the_centre_cut():
    wide = np.zeros((64, 256, 3), np.uint8)
    wide[:, 96:160] = 255  # exactly the central square
    assert (_square(Image.fromarray(wide), 32) > 250).mean() > 0.9
    exact = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(_square(Image.fromarray(exact), 32), exact)
