"""The real img2dataset, fetching generated pictures from this process, and what source and filter make of its output.

It pins old libraries, so give it an environment of its own and name its executable:

    python -m venv DIR && DIR/bin/pip install img2dataset 'albumentations<1.4'
    IMG2DATASET=DIR/bin/img2dataset python -m pytest tests/data/test_img2dataset.py
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from slam.config import Source
from slam.data.filter.stage import filter_stage
from slam.data.pictures import decode
from slam.data.records import open_pictures, read_raw, read_records
from slam.data.source import source_stage
from tests.data.conftest import FILTER

EXECUTABLE = os.environ.get("IMG2DATASET") or shutil.which("img2dataset")
COUNT, SHARD = 40, 15  # pictures asked for, and of them in a shard
GONE, BROKEN = {3, 13, 23}, {5, 25}  # answered with 404; with bytes that are no picture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EXECUTABLE, reason="no img2dataset in $IMG2DATASET or on the PATH"),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(address, bytes of each picture): 100 + i by 90 pixels, in the three formats."""
    folder, rng = tmp_path_factory.mktemp("served"), np.random.default_rng(0)
    contents = []
    for i in range(COUNT):
        buffer = io.BytesIO()
        image = Image.fromarray(rng.integers(0, 256, (9, 10, 3), dtype=np.uint8)).resize((100 + i, 90))
        image.save(buffer, ["JPEG", "PNG", "WEBP"][i % 3])
        contents.append(b"no picture" if i in BROKEN else buffer.getvalue())
        if i not in GONE:
            (folder / str(i)).write_bytes(contents[-1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", contents
    server.shutdown()
    thread.join()


ENCODINGS = {  # name -> options; those of the last leave the bytes as they came, unseen
    "jpg": {"encode_format": "jpg", "encode_quality": 95, "resize_mode": "keep_ratio"},
    "png": {"encode_format": "png", "encode_quality": 9, "resize_mode": "center_crop"},
    "webp": {"encode_format": "webp", "encode_quality": 95, "resize_mode": "no"},
    "verbatim": {"disable_all_reencoding": True},
}


@pytest.fixture(params=ENCODINGS)
def downloaded(request, served, tmp_path):
    """Where img2dataset left its shards, the rows that it was given, and how it encoded."""
    rows = [
        {
            "URL": f"{served[0]}/{i}",
            "TEXT": f"picture\n{i} ",
            "WIDTH": 100.0 + i,
            "HEIGHT": None if i % 4 else 90.0,
            "AESTHETIC_SCORE": 5.0 if i % 10 == 0 else 6.5,
            "punsafe": None if i % 7 == 0 else 0.1,
        }
        for i in range(COUNT)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "metadata.parquet")
    options = {
        **{"url_list": tmp_path / "metadata.parquet", "input_format": "parquet", "url_col": "URL"},
        **{"caption_col": "TEXT", "output_format": "webdataset", "output_folder": tmp_path / "shards"},
        **{"number_sample_per_shard": SHARD, "processes_count": 1, "thread_count": 4, "timeout": 5},
        **ENCODINGS[request.param] | {"image_size": 64},
        "save_additional_columns": '["WIDTH","HEIGHT","AESTHETIC_SCORE","punsafe"]',
    }
    command = [EXECUTABLE, *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(
        command, env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return tmp_path, rows, request.param


def test_what_img2dataset_left_is_read_whole_and_filtered(downloaded, served):
    folder, asked, encoding = downloaded
    config = Source(kind="img2dataset", path=str(folder / "shards"))
    assert source_stage(config, folder / "raw", folder / "evaluation") == {"shards": 3, "evaluation": 0}
    rows = []
    for shard in read_raw(folder / "raw").shards:
        found, stats = read_records(shard, phash=True).to_pylist(), json.loads(shard.stats.read_text())
        assert len(found) == stats["count"]
        with open_pictures(shard) as read:
            for row in found:
                if row["status"] == "success":
                    picture = decode(read(row["member"], row["offset"]), row["key"])
                    assert row["short_side"] == min(*picture.size, row["width"], row["height"])
        rows += found
    unseen = encoding == "verbatim"
    _check_records({row["url"]: row for row in rows}, asked, served[1], "broken" if unseen else "failed_to_resize")
    config = FILTER.model_copy(update={"validation": 5})
    counts = filter_stage(config, folder / "raw", folder / "filtered")
    kept = pq.read_table(folder / "filtered/manifest.parquet")["caption"].to_pylist()
    good = [i for i in range(COUNT) if i not in GONE | BROKEN and i % 10]
    assert sorted(kept) == sorted(f"picture {i}" for i in good)
    assert counts["rows"] == COUNT == sum(counts["rejected"].values()) + counts["survivors"]
    assert counts["rejected"]["failed_to_download"] == len(GONE)
    assert counts["rejected"]["broken" if unseen else "failed_to_resize"] == len(BROKEN)


def _check_records(rows, asked, contents, verdict):
    assert rows.keys() == {row["URL"] for row in asked} and len({row["key"] for row in rows.values()}) == COUNT
    for i, meant in enumerate(asked):
        row = rows[meant["URL"]]
        assert (row["caption"], row["aesthetic"]) == (f"picture {i}", meant["AESTHETIC_SCORE"])
        assert (row["nsfw"] is None) == (i % 7 == 0)
        if i in GONE:
            assert row["status"] == "failed_to_download" and "404" in row["detail"]
        elif i in BROKEN:
            assert (row["status"], bool(row["detail"])) == (verdict, True)
        else:
            assert (row["status"], row["width"], row["height"]) == ("success", 100 + i, 90)
            assert row["sha256"] == hashlib.sha256(contents[i]).hexdigest() and row["phash"] is not None
