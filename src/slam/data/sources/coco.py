"""COCO 2014 or 2017: a captions file and the folder of images that it speaks of.

A picture has five captions; training takes one, the first: that of the lowest annotation id, as the evaluation does.
A picture without a caption stays, with none, and the filter says what becomes of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from slam.config import Source
from slam.data.columns import named
from slam.data.sources import listing
from slam.data.sources.listing import open_pictures, records
from slam.errors import SlamError

__all__ = ["make", "open_pictures", "records"]


def make(config: Source, raw: Path) -> dict:
    """List the images of config.annotations, in the order of their ids, into `raw`; returns the counts."""
    annotations, images = Path(config.annotations).absolute(), Path(config.path).absolute()
    if not images.is_dir():
        raise SlamError(f"source.path = {images}: expected the folder of the pictures that source.annotations names")
    captioned = first_captions(document(annotations), annotations)
    rows = pa.table(
        {
            "file_name": pa.array([image["file_name"] for image, _ in captioned], pa.string()),
            "url": pa.array(
                [str(image["coco_url"]) if "coco_url" in image else None for image, _ in captioned], pa.string()
            ),
            "caption": pa.array([caption for _, caption in captioned], pa.string()),
        }
    )
    return listing.write(
        raw, "coco", images, named(rows, ("file", "caption"), annotations).select(["file", "url", "caption"])
    )


def document(file: Path) -> Any:
    """What the JSON `file` of a COCO download holds."""
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise SlamError(f"{file}: expected captions in COCO's form, found {error.strerror}") from None
    except ValueError as error:  # no JSON, no UTF-8
        raise SlamError(f"{file}: expected captions in COCO's form, JSON, found {error}: get it whole") from None


def first_captions(document: dict, where: Path) -> list[tuple[dict, str | None]]:
    """Each image of a COCO captions file by id, and its first caption.

    Raises `SlamError` for another document, and for a caption of an image that is not listed.
    """
    try:
        images = {image["id"]: image | {"file_name": str(image["file_name"])} for image in document["images"]}
        first: dict[int, str] = {}
        for annotation in sorted(document["annotations"], key=lambda annotation: annotation["id"]):
            first.setdefault(annotation["image_id"], annotation["caption"].strip())
        strange = first.keys() - images.keys()
        order = sorted(images)
    except (KeyError, TypeError, AttributeError) as error:
        raise SlamError(
            f"{where}: expected COCO captions (images: id, file_name; annotations: id, image_id, caption), "
            f"found none of {error}"
        ) from None
    if strange:
        raise SlamError(
            f"{where}: expected captions of its own images, found one of image {min(strange)}: get it whole"
        )
    return [(images[id], first.get(id)) for id in order]
