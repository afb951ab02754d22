"""The evaluation set: captions in COCO's format and the pictures they speak of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from slam.errors import SlamError
from slam.files import read_json

MADE_BY = "slam source"


@dataclass(frozen=True)
class Reference:
    captions: list[str]  # one for each of the first N pictures
    images: list[Path]  # every picture of the set, N at least, in the order of their ids

    def pictures(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """uint8 [H, W, 3], each of its own size. Raises `SlamError` naming a file that is no picture."""
        for path in self.images[start:stop]:
            try:
                with Image.open(path) as image:
                    yield np.asarray(image.convert("RGB"))
            except (OSError, UnidentifiedImageError) as error:
                raise SlamError(
                    f"{path}: expected a picture of the evaluation set, found {error}; run `{MADE_BY}` again"
                ) from None

    def sha256(self) -> str:
        """Of the captions and of every picture's bytes."""
        digest = sha256("\n".join(self.captions).encode())
        for path in self.images:
            digest.update(path.read_bytes())
        return digest.hexdigest()


def load_reference(evaluation: Path, samples: int) -> Reference:
    """The set that `evaluation/index.json` names: the first caption of each of the first `samples` pictures by id.

    "First" is the caption with the lowest annotation id; the order of files and of JSON entries plays no part.
    Raises `SlamError` when there are fewer captioned pictures than `samples`, or a picture is missing.
    """
    index = read_json(evaluation / "index.json", MADE_BY)
    if "captions" not in index:
        raise SlamError(
            "there is no evaluation set: give source.captions (COCO format) and source.images in params.yaml, "
            f"then run `{MADE_BY}` again"
        )
    captions, folder = evaluation / index["captions"], evaluation / index["images"]  # absolute paths stay as they are
    document = read_json(captions, MADE_BY)
    try:
        images = {image["id"]: folder / image["file_name"] for image in document["images"]}
        first = {}
        for annotation in sorted(document["annotations"], key=lambda annotation: annotation["id"]):
            first.setdefault(annotation["image_id"], " ".join(annotation["caption"].split()))
    except (KeyError, TypeError) as error:
        raise SlamError(
            f"{captions}: expected COCO captions (images: id, file_name; annotations: id, image_id, caption),"
            f" found none of {error}"
        ) from None
    captioned = sorted(images.keys() & first.keys())
    if len(captioned) < samples:
        raise SlamError(
            f"{captions}: expected evaluate.samples = {samples} captioned pictures, found {len(captioned)};"
            " lower evaluate.samples or give more captions"
        )
    order = captioned + sorted(images.keys() - first.keys())
    missing = [images[id] for id in order if not images[id].is_file()]
    if missing:
        raise SlamError(f"{missing[0]} and {len(missing) - 1} more of {captions} do not exist; run `{MADE_BY}` again")
    return Reference([first[id] for id in captioned[:samples]], [images[id] for id in order])
