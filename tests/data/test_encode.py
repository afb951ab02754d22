"""The stage in one process: what comes out, what is left out, what stops it."""

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from slam.data.encode.stage import encode_stage
from slam.data.latents import Latents
from slam.data.pictures import decode
from slam.data.records import read_raw
from slam.errors import SlamError
from slam.files import write_json
from slam.models.diffusion import load
from tests.data.conftest import ENCODE, FILTER, TINY, contents


@pytest.mark.parametrize("split", ["train", "validation"])
def test_latents_are_those_of_the_manifests_pictures_in_its_order(drawn, filtered, encoded, split):
    rows = pd.read_parquet(filtered / "manifest.parquet").query("split == @split")
    data, model = Latents(encoded, split), load(TINY, parts=("vae", "tokenizer"))
    latents, input_ids = data.gather(np.arange(len(data)))
    assert len(data) == len(rows) and data.captions(np.arange(len(data))) == list(rows.caption)
    assert torch.equal(input_ids, model.tokenize(list(rows.caption)))
    tars = [shard.tar.read_bytes() for shard in read_raw(drawn / "raw").shards]
    for i in range(0, len(rows), 7):
        row = rows.iloc[i]
        at = tars[row["shard"]].index(row.key.encode() + b".png") + 512
        picture = decode(tars[row["shard"]][at : at + 4000], row.key)
        pixels = torch.tensor(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
        assert torch.allclose(model.encode(pixels)[0], latents[i], atol=5e-3)


def test_the_index_tells_all_that_training_must_know(encoded):
    index = json.loads((encoded / "index.json").read_text())
    assert index["latent_shape"] == [4, 8, 8] and index["scaling_factor"] == 0.58201
    assert [shard["file"][:-12] for shard in index["shards"]][-1] == "validation-00001"
    for shard in index["shards"]:
        content = (encoded / shard["file"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard["bytes"], shard["sha256"])
    table = pq.read_table(encoded / "manifest.parquet").to_pandas()
    assert table.groupby("file").size().to_dict() == {shard["file"]: shard["count"] for shard in index["shards"]}
    assert (table[["width", "height"]] >= 32).all(axis=None)
    beside = {"manifest.parquet", "rejected.parquet", "index.json", "counts.json", "decoded.png", "docs"}
    assert {p.name for p in encoded.iterdir()} == {*table.file, *beside}


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes(drawn, filtered, encoded, tmp_path):
    encode_stage(ENCODE, TINY, drawn / "raw", filtered, tmp_path / "again", FILTER)
    assert contents(tmp_path / "again") == contents(encoded)


@pytest.fixture
def survivor(raw, filtered):
    """The copied tar that holds the first survivor to train on, and that survivor's row."""
    row = pd.read_parquet(filtered / "manifest.parquet").query("split == 'train'").iloc[0]
    return read_raw(raw).shards[row["shard"]].tar, row


def flip(tar, position):
    content = bytearray(tar.read_bytes())
    content[position] ^= 1
    tar.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(("verbatim", "byte", "reason"), [(True, 60, "changed"), (False, 1, "broken")])
def test_a_bad_picture_costs_itself_alone_and_is_listed(
    verbatim, byte, reason, survivor, raw, filtered, encoded, tmp_path
):
    """Where the tar holds what was downloaded, by its sha256; where it was encoded again, by decoding alone."""
    tar, row = survivor
    write_json(raw / "index.json", json.loads((raw / "index.json").read_text()) | {"verbatim": verbatim})
    flip(tar, row.offset + 512 + byte)
    counts = encode_stage(ENCODE, TINY, raw, filtered, tmp_path / "latents", FILTER)
    before, after = Latents(encoded, "train"), Latents(tmp_path / "latents", "train")
    assert counts["train"] == len(after) == len(before) - 1
    assert counts["rejected"] == {"broken": 0, "changed": 0} | {reason: 1}
    rows = pd.read_parquet(filtered / "manifest.parquet")
    assert len(rows) == counts["train"] + counts["validation"] + sum(counts["rejected"].values())
    (listed,) = pq.read_table(tmp_path / "latents/rejected.parquet").to_pylist()
    assert (listed["file"], listed["key"], listed["reason"]) == ("train-00000.safetensors", row.key, reason)
    assert f"shard {tar.stem}, key {row.key}: expected" in listed["detail"]
    kept = np.arange(len(after))
    latents, ids = after.gather(kept)
    was, were = before.gather(kept + 1)
    assert torch.allclose(latents, was, atol=5e-3) and torch.equal(ids, were)
    assert after.captions(kept) == before.captions(kept + 1)
    index = json.loads((tmp_path / "latents/index.json").read_text())
    assert [shard["count"] for shard in index["shards"]][:2] == [9, 10]


@pytest.mark.slow
def test_too_many_bad_pictures_stop_the_stage_and_a_larger_share_goes_on_from_there(survivor, raw, filtered, tmp_path):
    tar, row = survivor
    flip(tar, row.offset + 512 + 60)
    strict = ENCODE.model_copy(update={"broken": 0.001})
    places = TINY, raw, filtered, tmp_path / "latents"
    with pytest.raises(SlamError, match="1 of [0-9]+ pictures are broken or changed, more than encode.broken = 0.10%"):
        encode_stage(strict, *places, FILTER)
    assert not (tmp_path / "latents").exists()
    first = tmp_path / ".latents.partial/train-00000.safetensors"
    made = first.stat().st_mtime_ns
    encode_stage(ENCODE, *places, FILTER)
    assert (tmp_path / "latents" / first.name).stat().st_mtime_ns == made


@pytest.mark.slow
def test_a_shard_without_a_good_picture_is_empty_and_read_over(raw, filtered, encoded, tmp_path):
    rows = pd.read_parquet(filtered / "manifest.parquet").query("split == 'train'")
    tars = [shard.tar for shard in read_raw(raw).shards]
    for row in rows.iloc[10:20].itertuples():  # of the second shard of latents
        flip(tars[row.shard], row.offset + 512 + 60)
    encode_stage(ENCODE.model_copy(update={"broken": 0.5}), TINY, raw, filtered, tmp_path / "latents", FILTER)
    before, after = Latents(encoded, "train"), Latents(tmp_path / "latents", "train")
    assert len(after) == len(before) - 10
    others = np.r_[0:10, 20 : len(before)]
    assert torch.equal(after.gather(np.arange(len(after)))[0], before.gather(others)[0])


def test_a_tar_that_was_replaced_or_removed_is_noticed(survivor, raw, filtered, tmp_path):
    tar, row = survivor
    tar.write_bytes(tar.read_bytes()[512:])
    with pytest.raises(SlamError, match=f"expected {row.member} at byte {row.offset}.*run `slam filter` again"):
        encode_stage(ENCODE, TINY, raw, filtered, tmp_path / "latents", FILTER)
    tar.unlink()
    with pytest.raises(SlamError, match=f"the pictures of shard {tar.stem} cannot be read: .*No such file"):
        encode_stage(ENCODE, TINY, raw, filtered, tmp_path / "latents", FILTER)


def test_a_missing_manifest_and_an_odd_resolution_are_told(drawn, filtered, tmp_path):
    with pytest.raises(SlamError, match="manifest.parquet does not exist: run `slam filter` first"):
        encode_stage(ENCODE, TINY, drawn / "raw", tmp_path, tmp_path / "latents", FILTER)
    odd = ENCODE.model_copy(update={"resolution": 33})
    with pytest.raises(SlamError, match="encode.resolution = 33 must be a multiple of 4"):
        encode_stage(odd, TINY, drawn / "raw", filtered, tmp_path / "latents", FILTER)


@pytest.mark.slow
def test_latents_of_a_wrong_scale_fail_their_suite_and_are_left_to_be_looked_at(drawn, filtered, tmp_path):
    teacher = tmp_path / "teacher"
    shutil.copytree(TINY, teacher, ignore=shutil.ignore_patterns("unet", "text_encoder", "clip", "judge"))
    config = json.loads((teacher / "vae/config.json").read_text())
    write_json(teacher / "vae/config.json", config | {"scaling_factor": 10 * config["scaling_factor"]})
    with pytest.raises(SlamError) as raised:
        encode_stage(ENCODE, str(teacher), drawn / "raw", filtered, tmp_path / "latents", FILTER)
    partial = tmp_path / ".latents.partial"
    message = str(raised.value)
    assert "train-00000: expect column values to be between (column std, min_value 0.005, max_value 5.0)" in message
    assert "10 of 10 rows are not, e.g. key " in message and "scaling_factor right" in message
    assert str(partial / "docs/index.html") in message and (partial / "docs/index.html").is_file()
    assert (partial / "train-00000.safetensors").is_file() and not (tmp_path / "latents").exists()


@pytest.mark.slow
def test_a_users_own_expectations_of_latents_stop_the_stage_too(drawn, filtered, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "latents: [{type: expect_column_values_to_be_between, kwargs: {column: mean, max_value: -0.3}, notes: dark}]"
    )
    mine = FILTER.model_copy(update={"expectations": str(file)})
    with pytest.raises(SlamError, match=r"train-00000: .*column mean, max_value -0.3.* of 10 rows are not.*dark"):
        encode_stage(ENCODE, TINY, drawn / "raw", filtered, tmp_path / "latents", mine)
    file.write_text("latents: [{type: expect_column_values_to_not_be_null, kwargs: {column: men}}]")
    with pytest.raises(SlamError, match="'men' is no column of latents: did you mean mean?"):
        encode_stage(ENCODE, TINY, drawn / "raw", filtered, tmp_path / "other", mine)


def test_every_shard_is_an_asset_of_its_own_in_the_documents(encoded):
    index = (encoded / "docs/index.html").read_text()
    names = [path.stem for path in sorted(encoded.glob("*.safetensors"))]
    assert all(index.count(f'>{name}</a><td>latents<td class="passed">') == 1 for name in names)
    assert index.count('>all-shards</a><td>latent_shards<td class="passed">') == 1 and 'class="failed"' not in index
    assert (encoded / "docs" / "../decoded.png").is_file() and 'src="../decoded.png"' in index


def test_the_sheet_shows_pictures_above_what_is_decoded(encoded):
    sheet = Image.open(encoded / "decoded.png")
    cells = np.asarray(sheet)[12 : 12 + 2 * 96 + 4, 84 : 84 + 8 * 100].astype(float)
    above, below = cells[:96], cells[100:]
    assert 0 < np.abs(above - below).mean() < 8  # of 255: nearly the same, and not the same
    assert np.abs(above - np.roll(below, 100, axis=1)).mean() > 20  # another's
