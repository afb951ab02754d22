"""The procedural tiny world, drawn and written as img2dataset would have left it: a share degraded, some dead links.

A shard is `00000.tar` (KEY.png, KEY.txt, KEY.json for every picture that was had), `00000.parquet` (a row for every
picture that was asked for) and `00000_stats.json`.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter

from slam.config import Source
from slam.data import aesthetics, shapes
from slam.data.sources.img2dataset import open_pictures, records
from slam.files import whole_folder, write_json
from slam.progress import progress

__all__ = ["draw_evaluation", "make", "open_pictures", "records"]

TRAINING, EVALUATION = 1, 2  # second word of the seeds, so that the two sets never share one
LOST = 0.01  # share of the rows that failed to download, as dead links do
DIGITS = 5  # of a shard's number

SCHEMA = pa.schema(
    [("aesthetic", pa.float64())]  # what --save_additional_columns adds comes first
    + [(name, pa.string()) for name in ("caption", "url", "key", "status", "error_message")]
    + [(name, pa.int32()) for name in ("width", "height", "original_width", "original_height")]
    + [(name, pa.string()) for name in ("exif", "sha256")]
)


def make(config: Source, raw: Path) -> dict:
    """Draw config.pictures into `raw`; the same configuration gives the same bytes. Returns the counts."""
    starts = range(0, config.pictures, config.shard)
    with whole_folder(raw) as partial:
        entries = []
        for number, start in enumerate(progress(starts, "draw")):
            name = f"{number:0{DIGITS}d}"
            write_shard(partial, name, *_shard(config, number, min(config.shard, config.pictures - start)))
            ends = {"tar": ".tar", "parquet": ".parquet", "stats": "_stats.json"}
            entries.append({"name": name} | {place: name + end for place, end in ends.items()})
        write_json(partial / "index.json", {"kind": "shapes", "verbatim": True, "shards": entries})
    return {"pictures": config.pictures, "shards": len(entries)}


def _shard(config: Source, number: int, count: int) -> tuple[list[dict], list[bytes | None]]:
    """Rows and PNG bytes of one shard; the same for the same (seed, number)."""
    drawn = shapes.draw(count, (config.seed, TRAINING, number))
    rng = np.random.default_rng((config.seed, TRAINING, number, 1))
    images = degrade(drawn.images, config.degraded, rng)
    scores = aesthetics.score(images)
    pngs = [None if lost else _png(image) for image, lost in zip(images, rng.random(count) < LOST, strict=True)]
    width = DIGITS + len(str(config.shard - 1))  # img2dataset: digits of the shard's number and of the rows in one
    rows = []
    for i, png in enumerate(pngs):
        key = f"{number * 10 ** (width - DIGITS) + i:0{width}d}"
        rows.append(_row(key, drawn.captions[i], float(scores[i]), png))
    return rows, pngs


def _row(key: str, caption: str, score: float, png: bytes | None) -> dict:
    had = png is not None
    side = shapes.SIZE if had else None
    return {
        "aesthetic": score,
        "caption": caption,
        "url": f"shapes:{key}",
        "key": key,
        "status": "success" if had else "failed_to_download",
        "error_message": None if had else "drawn as a dead link",
        **dict.fromkeys(("width", "height", "original_width", "original_height"), side),
        "exif": "{}" if had else None,
        "sha256": hashlib.sha256(png).hexdigest() if had else None,
    }


def degrade(images: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A copy of uint8 [N, H, W, 3] with about `share` of the pictures blurred, faded, noisy or crushed by JPEG."""
    images = images.copy()
    for i in np.flatnonzero(rng.random(len(images)) < share):
        images[i] = DEGRADATIONS[rng.integers(len(DEGRADATIONS))](images[i], rng)
    return images


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 2.5))))


def _fade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mean = image.mean(axis=(0, 1))
    return (mean + rng.uniform(0.12, 0.3) * (image - mean) + 0.5).astype(np.uint8)


def _noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(image + rng.normal(0, rng.uniform(15, 35), image.shape) + 0.5, 0, 255).astype(np.uint8)


def _crush(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=int(rng.integers(5, 8)))
    return np.asarray(Image.open(buffer, formats=("JPEG",)).convert("RGB"))


DEGRADATIONS = (_blur, _fade, _noise, _crush)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def draw_evaluation(config: Source, folder: Path) -> None:
    """captions.json in COCO's format, images/*.png, index.json, of pictures that no training shard holds."""
    drawn = shapes.draw(config.evaluation, (config.seed, EVALUATION))
    (folder / "images").mkdir()
    entries, annotations = [], []
    for i, (image, caption) in enumerate(zip(progress(drawn.images, "evaluation"), drawn.captions, strict=True)):
        name = f"{i:012d}.png"
        (folder / "images" / name).write_bytes(_png(image))
        entries.append({"id": i, "file_name": name, "width": shapes.SIZE, "height": shapes.SIZE})
        annotations.append({"id": i, "image_id": i, "caption": caption})
    write_json(folder / "captions.json", {"images": entries, "annotations": annotations})
    write_json(folder / "index.json", {"captions": "captions.json", "images": "images"})


def write_shard(folder: Path, name: str, rows: Sequence[dict], images: Sequence[bytes | None]) -> None:
    """Write `rows` (keys of SCHEMA) and the PNG `images` (None where the download failed) as one shard.

    The same rows give the same bytes: the tar's times and the statistics' are 0, the rest is img2dataset's.
    """
    with tarfile.open(folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for row, image in zip(rows, images, strict=True):
            if image is not None:
                parts = {"json": json.dumps(row, indent=4).encode(), "png": image, "txt": row["caption"].encode()}
                for extension, content in parts.items():
                    _add(tar, f"{row['key']}.{extension}", content)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / f"{name}.parquet")
    messages = pd.Series([row["error_message"] or row["status"] for row in rows])
    status = pd.Series([row["status"] for row in rows])
    stats = {
        "count": len(rows),
        "successes": int((status == "success").sum()),
        "failed_to_download": int((status == "failed_to_download").sum()),
        "failed_to_resize": int((status == "failed_to_resize").sum()),
        "duration": 0.0,
        "start_time": 0.0,
        "end_time": 0.0,
        "status_dict": {key: int(count) for key, count in messages.value_counts(sort=False).items()},
    }
    (folder / f"{name}_stats.json").write_text(json.dumps(stats, indent=4), encoding="utf-8")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.uname, member.gname = len(content), 0o444, "bigdata", "bigdata"
    tar.addfile(member, io.BytesIO(content))
