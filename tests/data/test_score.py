"""Scores of pictures whose metadata has none, against the predictor's own network on the pictures of the tars."""

import io
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel

from slam.config_data import Limit, Score, Source
from slam.data.filter.stage import filter_stage
from slam.data.records import read_raw, read_records
from slam.data.score import score_stage
from slam.data.scores import with_scores
from slam.data.source import source_stage
from slam.errors import SlamError
from slam.files import read_json
from tests.data.conftest import FILTER
from tests.models.laion import five_layers


@pytest.fixture(scope="module")
def config(aesthetics_clip, aesthetics_head) -> Score:
    return Score(clip=str(aesthetics_clip), head=str(aesthetics_head), batch=16)


@pytest.fixture
def bare(raw) -> Path:
    """Shards as img2dataset leaves them without --save_additional_columns."""
    for shard in read_raw(raw).shards:
        pq.write_table(pq.read_table(shard.parquet).drop(["aesthetic"]), shard.parquet)
    return raw


def spoil(raw: Path) -> str:
    """Break the pixels of the first picture, but not its header; returns its key."""
    shard = read_raw(raw).shards[0]
    with tarfile.open(shard.tar) as tar:
        member = next(m for m in tar if m.name.endswith(".png"))
    content = bytearray(shard.tar.read_bytes())
    middle = member.offset_data + member.size // 2
    content[middle : middle + 8] = bytes(8)
    shard.tar.write_bytes(content)
    return member.name.removesuffix(".png")


def expected(raw: Path, clip: str) -> dict[str, float]:
    """Key -> score by the five layers themselves, of the whole CLIP's embedding of what stands in the tars."""
    pictures = {}
    for shard in read_raw(raw).shards:
        with tarfile.open(shard.tar) as tar:
            for member in tar:
                if member.name.endswith(".png"):
                    pictures[member.name[:-4]] = Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")
    pixels = CLIPImageProcessorPil.from_pretrained(clip)(images=list(pictures.values()), return_tensors="pt")
    with torch.inference_mode():
        embedded = CLIPModel.from_pretrained(clip).get_image_features(**pixels).pooler_output
        scores = five_layers(7)(torch.nn.functional.normalize(embedded, dim=-1)).squeeze(1)
    return dict(zip(pictures, scores.tolist(), strict=True))


def rows(scores: Path) -> list[dict]:
    return [row for file in sorted(scores.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_every_picture_gets_the_networks_score(bare, config, tmp_path):
    told = score_stage(config, bare, tmp_path / "scores")
    wanted = expected(bare, config.clip)
    found = {row["key"]: row["aesthetic"] for row in rows(tmp_path / "scores")}
    assert found.keys() == wanted.keys() and told == {"scored": len(wanted), "broken": 0}
    assert max(abs(found[key] - wanted[key]) for key in wanted) < 1e-4


def test_rows_that_have_a_score_keep_it(raw, config, tmp_path):
    shard = read_raw(raw).shards[0]
    table = pq.read_table(shard.parquet)
    half = pa.array([None if i % 2 else value for i, value in enumerate(table["aesthetic"].to_pylist())], pa.float64())
    pq.write_table(table.set_column(0, "aesthetic", half), shard.parquet)
    score_stage(config, raw, tmp_path / "scores")
    before, wanted = read_records(shard), expected(raw, config.clip)
    after = with_scores(before, shard.name, tmp_path / "scores")
    assert after.schema.equals(before.schema)
    for old, new in zip(before.to_pylist(), after.to_pylist(), strict=True):
        lacking = old["status"] == "success" and old["aesthetic"] is None
        score = pytest.approx(wanted[old["key"]], abs=1e-4) if lacking else old["aesthetic"]
        assert new == old | {"aesthetic": score}
    assert 20 < len(rows(tmp_path / "scores")) < len(before) / 2 + 1


def test_a_picture_that_does_not_decode_is_listed_with_its_reason_and_never_scored(bare, config, tmp_path):
    key = spoil(bare)
    assert score_stage(config, bare, tmp_path / "scores")["broken"] == 1
    listed = [row for row in rows(tmp_path / "scores") if row["aesthetic"] is None]
    assert [row["key"] for row in listed] == [key]
    assert f"shard 00000, key {key}: " in listed[0]["detail"]
    assert all(row["detail"] is None for row in rows(tmp_path / "scores") if row["key"] != key)
    shard = read_raw(bare).shards[0]
    record = next(
        r for r in with_scores(read_records(shard), "00000", tmp_path / "scores").to_pylist() if r["key"] == key
    )
    assert (record["status"], record["aesthetic"], record["detail"]) == ("broken", None, listed[0]["detail"])


@pytest.mark.slow
def test_the_filter_cuts_by_the_scores_and_counts_what_is_broken(bare, config, tmp_path):
    key = spoil(bare)
    with pytest.raises(SlamError):  # no row has a score
        filter_stage(FILTER, bare, tmp_path / "filtered")
    score_stage(config, bare, tmp_path / "scores")
    wanted = {row["key"]: row["aesthetic"] for row in rows(tmp_path / "scores") if row["key"] != key}
    cut = sorted(wanted.values())[len(wanted) // 4]
    limits = FILTER.limits.model_copy(update={"aesthetic": Limit(min=cut, missing="stop")})
    counts = filter_stage(
        FILTER.model_copy(update={"limits": limits}), bare, tmp_path / "filtered", tmp_path / "scores"
    )
    manifest = pq.read_table(tmp_path / "filtered/manifest.parquet").to_pylist()
    assert counts["rejected"]["broken"] == 1
    assert counts["rejected"]["aesthetic"] == sum(score < cut for score in wanted.values()) > 0
    assert {row["key"]: row["aesthetic"] for row in manifest} == {k: s for k, s in wanted.items() if s >= cut}


@pytest.mark.slow
def test_killed_and_started_again_it_leaves_the_same_bytes(bare, config, tmp_path):
    whole = tmp_path / "whole"
    score_stage(config, bare, whole)
    killed = tmp_path / "killed"
    code = f"""
import os, signal
from pathlib import Path
import pyarrow.parquet as pq
from slam.config_data import Limit, Score, Source
from slam.data.score import score_stage
written, write = [], pq.write_table
def last_words(table, path, **options):
    write(table, path, **options)
    written.append(path)
    if len(written) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
pq.write_table = last_words
score_stage(Score(**{config.model_dump()!r}), Path({str(bare)!r}), Path({str(killed)!r}))
"""
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert not killed.exists()
    first = tmp_path / ".killed.partial/00000.parquet"
    before = first.stat().st_mtime_ns
    score_stage(config, bare, killed)
    assert (killed / "00000.parquet").stat().st_mtime_ns == before  # kept, not made again
    names = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (whole, killed)]
    assert names[0] == names[1] and len(names[0]) == 4


def test_another_predictor_does_not_go_on_with_the_scores_of_the_first(bare, config, tmp_path, monkeypatch):
    monkeypatch.setattr(pq, "write_table", dying(pq.write_table, after=2))
    with pytest.raises(SlamError, match="no room left for .*scores: .*the same command goes on from here"):
        score_stage(config, bare, tmp_path / "scores")
    monkeypatch.undo()
    other = config.model_copy(update={"batch": 8})
    score_stage(other, bare, tmp_path / "scores")
    score_stage(other, bare, tmp_path / "again")
    assert rows(tmp_path / "scores") == rows(tmp_path / "again")
    assert not list(tmp_path.glob(".*partial"))


def dying(write, after: int):
    """A disk that fills when `after` tables are written."""
    written = []

    def full(table, path, **options):
        if len(written) == after:
            raise OSError(28, "No space left on device")
        written.append(write(table, path, **options))

    return full


def test_a_folder_of_images_is_scored_and_metadata_alone_is_refused(bare, config, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    wanted = expected(bare, config.clip)
    with tarfile.open(read_raw(bare).shards[0].tar) as tar:
        names = [member.name for member in tar if member.name.endswith(".png")][:5]
        for name in names:
            (pictures / name).write_bytes(tar.extractfile(name).read())
    (pictures / "note.png").write_bytes(b"no picture")
    source_stage(Source(kind="folder", path=str(pictures)), tmp_path / "folder", tmp_path / "evaluation")
    assert score_stage(config, tmp_path / "folder", tmp_path / "scores") == {"scored": 5, "broken": 0}
    shard = read_raw(tmp_path / "folder").shards[0]
    found = with_scores(read_records(shard), shard.name, tmp_path / "scores").to_pylist()
    assert [row["status"] for row in found] == ["success"] * 5 + ["broken"]  # in the order of the names
    assert {row["member"] for row in found[:5]} == set(names)
    for row in found[:5]:
        assert row["aesthetic"] == pytest.approx(wanted[row["member"].removesuffix(".png")], abs=1e-4)
    pq.write_table(pa.table({"URL": ["http://a.b/c.png"], "TEXT": ["a circle"]}), tmp_path / "laion.parquet")
    laion = Source(kind="metadata", path=str(tmp_path / "laion.parquet"))
    source_stage(laion, tmp_path / "metadata", tmp_path / "evaluation")
    with pytest.raises(SlamError, match="source.kind = metadata has no pictures, .* img2dataset"):
        score_stage(config, tmp_path / "metadata", tmp_path / "none")


def test_scores_of_other_pictures_are_refused(bare, config, tmp_path):
    score_stage(config, bare, tmp_path / "scores")
    shard = read_raw(bare).shards[1]
    with pytest.raises(SlamError, match=r"00007.parquet does not exist: run `slam score` first"):
        with_scores(read_records(shard), "00007", tmp_path / "scores")
    table = pq.read_table(shard.parquet)
    place = next(i for i, status in enumerate(table["status"].to_pylist()) if status == "success")
    changed = table["sha256"].to_pylist()
    changed[place] = "0" * 64
    column = table.schema.get_field_index("sha256")
    pq.write_table(table.set_column(column, "sha256", pa.array(changed)), shard.parquet)
    with pytest.raises(SlamError, match=f"found none for key {table['key'][place]} or for another picture there"):
        with_scores(read_records(shard), shard.name, tmp_path / "scores")


def test_without_a_predictor_there_is_nothing_to_do(raw, tmp_path):
    assert score_stage(None, raw, tmp_path / "scores") == {"scored": 0}
    assert [path.name for path in (tmp_path / "scores").iterdir()] == ["index.json"]
    assert read_json(tmp_path / "scores/index.json", "slam score")["shards"] == []


def test_values_that_are_not_finite_stop_it(bare, config, tmp_path):
    clip = CLIPModel.from_pretrained(config.clip)
    clip.visual_projection.weight.data.fill_(torch.inf)
    clip.save_pretrained(tmp_path / "clip")
    CLIPImageProcessorPil.from_pretrained(config.clip).save_pretrained(tmp_path / "clip")
    with pytest.raises(SlamError, match="values that are not finite for keys 0000000 and on of 00000: score.precision"):
        score_stage(config.model_copy(update={"clip": str(tmp_path / "clip")}), bare, tmp_path / "scores")
    assert not (tmp_path / "scores").exists()
