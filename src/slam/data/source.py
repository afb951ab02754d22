"""Stage `source`: shards of captioned pictures, and the reference set for evaluation."""

from __future__ import annotations

from pathlib import Path

from slam.config import Source
from slam.data.sources import SOURCES
from slam.data.sources.shapes import draw_evaluation
from slam.errors import SlamError
from slam.files import read_json, whole_folder, write_json


def source_stage(config: Source, raw: Path, evaluation: Path) -> dict:
    """Write `raw` and `evaluation`; returns what they hold.

    Raises `SlamError` when the user's shards are incomplete or the evaluation files are missing.
    """
    if config.kind == "shapes":
        counts = SOURCES[config.kind].make(config, raw)
        with whole_folder(evaluation) as partial:
            draw_evaluation(config, partial)
        return counts | {"evaluation": config.evaluation}
    captions, images, count = _reference(config)
    counts = SOURCES[config.kind].make(config, raw)
    with whole_folder(evaluation) as partial:
        write_json(partial / "index.json", {"captions": str(captions), "images": str(images)})
    return counts | {"evaluation": count}


def _reference(config: Source) -> tuple[Path, Path, int]:
    """The captions, the folder of images and how many they are."""
    captions, images = Path(config.captions).absolute(), Path(config.images).absolute()
    annotations = read_json(captions, "the COCO download")
    if not isinstance(annotations, dict) or not {"images", "annotations"} <= annotations.keys():
        raise SlamError(f"source.captions = {captions}: expected COCO's keys `images` and `annotations`")
    if not images.is_dir():
        raise SlamError(f"source.images = {images}: expected the folder of the pictures that source.captions names")
    return captions, images, len(annotations["images"])
