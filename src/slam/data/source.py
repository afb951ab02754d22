"""Stage `source`: shards of captioned pictures, and the reference set for evaluation."""

from __future__ import annotations

from pathlib import Path

from slam.config import Source
from slam.data.room import room
from slam.data.sources import SOURCES
from slam.data.sources.coco import document
from slam.data.sources.shapes import draw_evaluation
from slam.errors import SlamError
from slam.files import whole_folder, write_json


def source_stage(config: Source, raw: Path, evaluation: Path) -> dict:
    """Write `raw` and `evaluation`; returns what they hold.

    Raises `SlamError` for what the user has to mend: files that are missing, columns that no name is known for.
    """
    told = {} if config.captions is None else _reference(Path(config.captions), Path(config.images))
    with room(raw):
        counts = SOURCES[config.kind].make(config, raw)
    with room(evaluation), whole_folder(evaluation) as partial:
        if config.kind == "shapes":
            draw_evaluation(config, partial)
            return counts | {"evaluation": config.evaluation}
        write_json(partial / "index.json", {name: told[name] for name in ("captions", "images") if name in told})
    return counts | {"evaluation": told.get("count", 0)}


def _reference(captions: Path, images: Path) -> dict:
    """The captions file, the folder of images, and the count of those that it names."""
    captions, images = captions.absolute(), images.absolute()
    annotations = document(captions)
    if not isinstance(annotations, dict) or not {"images", "annotations"} <= annotations.keys():
        raise SlamError(f"source.captions = {captions}: expected COCO's keys `images` and `annotations`")
    if not images.is_dir():
        raise SlamError(f"source.images = {images}: expected the folder of the pictures that source.captions names")
    return {"captions": str(captions), "images": str(images), "count": len(annotations["images"])}
