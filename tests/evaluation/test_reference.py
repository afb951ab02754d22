import json

import pytest

from slam.errors import SlamError
from slam.evaluation.reference import load_reference
from slam.files import write_json


@pytest.fixture
def coco(tmp_path):
    """Ids out of order, several captions a picture, one picture without any, newlines and trailing blanks."""
    (tmp_path / "images").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "images" / name).write_bytes(name.encode())
    document = {
        "images": [{"id": 9, "file_name": "a"}, {"id": 4, "file_name": "b"}, {"id": 7, "file_name": "c"}],
        "annotations": [
            {"id": 30, "image_id": 9, "caption": "a late one"},
            {"id": 12, "image_id": 9, "caption": "A dog\nruns. "},
            {"id": 25, "image_id": 4, "caption": "A cat."},
        ],
    }
    write_json(tmp_path / "captions.json", document)
    write_json(tmp_path / "index.json", {"captions": "captions.json", "images": "images"})
    return tmp_path


def test_first_caption_of_each_picture_in_the_order_of_ids_and_every_picture_as_reference(coco):
    reference = load_reference(coco, 2)
    assert reference.captions == ["A cat.", "A dog runs."]
    assert [path.name for path in reference.images] == ["b", "a", "c"]


def test_several_pictures_a_caption_and_only_the_captions_own_pictures_as_reference(coco):
    reference = load_reference(coco, 3, each=3, matched=True)
    assert reference.captions == ["A cat."] * 3
    assert [path.name for path in reference.images] == ["b"]


def test_a_caption_of_an_image_that_is_not_listed_is_named(coco):
    document = json.loads((coco / "captions.json").read_text())
    document["annotations"].append({"id": 1, "image_id": 5, "caption": "lost"})
    write_json(coco / "captions.json", document)
    with pytest.raises(SlamError, match="expected captions of its own images, found one of image 5"):
        load_reference(coco, 2)


def test_the_order_of_the_json_plays_no_part(coco):
    first = load_reference(coco, 2)
    document = json.loads((coco / "captions.json").read_text())
    write_json(coco / "captions.json", {key: entries[::-1] for key, entries in document.items()})
    assert load_reference(coco, 2) == first


def test_the_hash_follows_pictures_and_captions(coco):
    hashes = {load_reference(coco, 2).sha256(), load_reference(coco, 1).sha256()}
    (coco / "images" / "c").write_bytes(b"another")
    assert len(hashes | {load_reference(coco, 2).sha256()}) == 3


def test_too_few_captions_missing_and_broken_pictures_are_named(coco):
    with pytest.raises(SlamError, match="expected 3 captioned pictures for evaluate.samples = 3, found 2 of 3"):
        load_reference(coco, 3)
    with pytest.raises(SlamError, match="b: expected a picture of the evaluation set"):
        next(load_reference(coco, 2).read([0]))
    (coco / "images" / "c").unlink()
    with pytest.raises(SlamError, match="images/c and 0 more pictures"):
        load_reference(coco, 2)


def test_images_without_captions_are_said_so(coco):
    document = json.loads((coco / "captions.json").read_text())
    write_json(coco / "captions.json", document | {"annotations": []})
    with pytest.raises(SlamError, match="expected 2 captioned pictures .*, found 0 of 3"):
        load_reference(coco, 2)


def test_what_is_not_coco_is_said_so(coco):
    write_json(coco / "captions.json", {"images": [{"id": 1}], "annotations": []})
    with pytest.raises(SlamError, match="expected COCO captions.*'file_name'"):
        load_reference(coco, 1)
