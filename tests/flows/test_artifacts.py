"""What Prefect's pages are given."""

import base64
import io
from uuid import uuid4

import pytest
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client

from flows import artifacts
from slam.progress import progress


def test_a_bar_of_ours_is_read_and_no_other_line(capsys, monkeypatch):
    monkeypatch.setattr("slam.progress.LINE_EVERY", 0.0)
    for _ in progress(range(4), "train", miniters=1):
        pass
    lines = capsys.readouterr().err.splitlines()
    found = [artifacts.BAR.match(line) for line in lines]
    assert {(bar[1], bar[2]) for bar in found} >= {("train", "0"), ("train", "50"), ("train", "100")}
    assert not artifacts.BAR.match("train: loss 0.4, 100% of the shards")


def test_a_picture_is_embedded_no_wider_than_the_page(tmp_path):
    Image.new("RGB", (3 * artifacts.WIDTH, 30), "red").save(tmp_path / "wide.png")
    kind, data = artifacts.embedded(tmp_path / "wide.png").split(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (artifacts.WIDTH, 10)


@pytest.mark.slow
def test_a_run_shows_how_far_its_stage_is_and_what_was_measured(prefect_server, tmp_path):
    stage = f"s{uuid4().hex}"
    (tmp_path / "table.md").write_text("| a table |\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "samples.png")

    @flow
    def showing():
        shown = artifacts.Progress(stage)
        shown.read("a line")
        shown.read("train:  40%|####      | 140/350 [00:20<00:30]")
        shown.read("train:  50%|#####     | 175/350 [00:25<00:25]")  # too soon after the one before
        half = shown.artifact
        shown.done()
        artifacts.results("version 3: champion", tmp_path)
        return str(half)

    half = showing()
    with get_client(sync_client=True) as client:
        known = {str(item.id): item for item in client.read_artifacts(limit=200)}
    assert (known[half].key, known[half].data) == (f"progress-{stage}", 100.0)
    (page,) = [item for item in known.values() if item.key == "evaluation" and "version 3" in item.description]
    assert page.data.startswith("# version 3: champion\n\n| a table |\n\n![samples](data:image/png;base64,")


def test_a_page_that_is_away_stops_nothing(monkeypatch):
    monkeypatch.setattr(artifacts, "create_progress_artifact", lambda *_: 1 / 0)
    shown = artifacts.Progress("train")
    shown.read("train:  40%|####      | 140/350 [00:20<00:30]")
    shown.done()
