"""The evaluation set: captions in COCO's format and the pictures they speak of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    captions: list[str]  # of each picture to draw; the first `each` are of the first image, and so on
    images: list[Path]  # every picture of the set in the order of their ids, the captioned ones first
    each: int = 1  # pictures to draw for a caption

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """These images, uint8 [H, W, 3], each of its own size. Raises `SlamError` naming one that is broken."""
        for path in (self.images[index] for index in indices):
            try:
                with Image.open(path) as image:
                    yield np.asarray(image.convert("RGB"))
            except (OSError, UnidentifiedImageError) as error:
                raise SlamError(
                    f"{path}: expected a picture of the evaluation set, found {error}; run `{MADE_BY}` again"
                ) from None

    def sha256(self) -> str:
        """Of captions and pictures together."""
        digest = sha256("\n".join(self.captions).encode())
        for path in self.images:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def captions_sha256(self) -> str:
        return sha256("\n".join(self.captions).encode()).hexdigest()

    def pictures_sha256(self) -> str:
        """Of every picture's bytes."""
        digest = sha256()
        for path in self.images:
            digest.update(path.read_bytes())
        return digest.hexdigest()


def load_reference(evaluation: Path, samples: int, each: int = 1, matched: bool = False) -> Reference:
    """The set that `evaluation/index.json` names: the first caption of each of the first images by id, `each` times.

    "First" is the caption with the lowest annotation id; the order of files and of JSON entries plays no part.
    `matched` leaves out the images whose captions are not drawn. Raises `SlamError` when there are too few captioned
    pictures for `samples`, a caption is of an image that is not listed, or a picture is missing.
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
    if strange := sorted(first.keys() - images.keys(), key=str):
        raise SlamError(
            f"{captions}: expected captions of its own images, found one of image {strange[0]}: get it whole"
        )
    prompts, captioned = samples // each, sorted(first)
    if len(captioned) < prompts:
        raise SlamError(
            f"{captions}: expected {prompts} captioned pictures for evaluate.samples = {samples}, found"
            f" {len(captioned)} of {len(images)}; give more captions, or draw fewer pictures under the protocol `own`"
        )
    order = captioned[:prompts] if matched else captioned + sorted(images.keys() - first.keys())
    missing = [images[id] for id in order if not images[id].is_file()]
    if missing:
        raise SlamError(
            f"{missing[0]} and {len(missing) - 1} more pictures of {captions} do not exist: source.images must be the"
            f" folder that holds them; then run `{MADE_BY}` again"
        )
    return Reference([first[id] for id in captioned[:prompts] for _ in range(each)], [images[id] for id in order], each)
