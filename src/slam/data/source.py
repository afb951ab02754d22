"""Stage `source`: captioned pictures in the form that img2dataset leaves, and the reference set for evaluation.

`shapes` draws both. `img2dataset` names what is already on disk and copies nothing.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from slam.config import Source
from slam.data import aesthetics, shapes
from slam.data.shards import Shard, check_complete, write_shard
from slam.errors import SlamError
from slam.files import read_json, whole_folder, write_json
from slam.progress import progress

TRAINING, EVALUATION = 1, 2  # second word of the seeds, so that the two sets never share one
LOST = 0.01  # share of the rows that failed to download, as dead links do
DIGITS = 5  # of a shard's number


def source_stage(config: Source, raw: Path, evaluation: Path) -> dict:
    """Write `raw` and `evaluation`; returns what they hold.

    Raises `SlamError` when the user's shards are incomplete or the evaluation files are missing.
    """
    return {"shapes": _draw, "img2dataset": _name}[config.kind](config, raw, evaluation)


def _name(config: Source, raw: Path, evaluation: Path) -> dict:
    folder, captions, images = (Path(p).absolute() for p in (config.path, config.captions, config.images))
    stems = sorted({path.stem for end in ("*.tar", "*.parquet") for path in folder.glob(end)})
    if not stems:
        raise SlamError(f"source.path = {folder}: expected img2dataset's 00000.tar, .parquet, …, found none")
    shards = [Shard(s, folder / f"{s}.tar", folder / f"{s}.parquet", folder / f"{s}_stats.json") for s in stems]
    check_complete(shards)
    annotations = read_json(captions, "the COCO download")
    if not isinstance(annotations, dict) or not {"images", "annotations"} <= annotations.keys():
        raise SlamError(f"source.captions = {captions}: expected COCO's keys `images` and `annotations`")
    if not images.is_dir():
        raise SlamError(f"source.images = {images}: expected the folder of the pictures that source.captions names")
    with whole_folder(raw) as partial:
        _index(partial, "img2dataset", shards, verbatim=False)
    with whole_folder(evaluation) as partial:
        write_json(partial / "index.json", {"captions": str(captions), "images": str(images)})
    return {"shards": len(shards), "evaluation": len(annotations["images"])}


def _draw(config: Source, raw: Path, evaluation: Path) -> dict:
    starts = range(0, config.pictures, config.shard)
    with whole_folder(raw) as partial:
        shards = []
        for number, start in enumerate(progress(starts, "draw")):
            name = f"{number:0{DIGITS}d}"
            write_shard(partial, name, *_shard(config, number, min(config.shard, config.pictures - start)))
            shards.append(Shard(name, Path(f"{name}.tar"), Path(f"{name}.parquet"), Path(f"{name}_stats.json")))
        _index(partial, "shapes", shards, verbatim=True)
    with whole_folder(evaluation) as partial:
        _coco(partial, shapes.draw(config.evaluation, (config.seed, EVALUATION)))
    return {"pictures": config.pictures, "shards": len(shards), "evaluation": config.evaluation}


def _index(folder: Path, kind: str, shards: list[Shard], verbatim: bool) -> None:
    entries = [{"tar": str(s.tar), "parquet": str(s.parquet), "stats": str(s.stats)} for s in shards]
    write_json(folder / "index.json", {"kind": kind, "verbatim": verbatim, "shards": entries})


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


def _coco(folder: Path, drawn: shapes.Pictures) -> None:
    """captions.json in COCO's format, images/*.png, index.json."""
    (folder / "images").mkdir()
    entries, annotations = [], []
    for i, (image, caption) in enumerate(zip(progress(drawn.images, "evaluation"), drawn.captions, strict=True)):
        name = f"{i:012d}.png"
        (folder / "images" / name).write_bytes(_png(image))
        entries.append({"id": i, "file_name": name, "width": shapes.SIZE, "height": shapes.SIZE})
        annotations.append({"id": i, "image_id": i, "caption": caption})
    write_json(folder / "captions.json", {"images": entries, "annotations": annotations})
    write_json(folder / "index.json", {"captions": "captions.json", "images": "images"})
