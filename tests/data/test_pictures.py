import io

import numpy as np
import pytest
from PIL import Image

from slam.data import pictures
from slam.data.pictures import BrokenPicture, decode, phash, probe
from tests.data.breakage import png


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_pictures_of_the_three_forms_are_decoded(form):
    red = Image.new("RGB", (20, 10), (200, 30, 30))
    assert np.abs(np.asarray(decode(encoded(red, form), "x"), int) - [200, 30, 30]).max() < 6


def test_transparent_parts_become_white_and_grey_becomes_rgb():
    assert decode(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0))), "x").getpixel((0, 0)) == (255, 255, 255)
    assert decode(encoded(Image.new("L", (4, 4), 7)), "x").getpixel((0, 0)) == (7, 7, 7)


def test_a_turned_picture_is_put_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "JPEG", exif=exif)
    assert decode(buffer.getvalue(), "x").size == (10, 20)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "BMP"])
def test_other_forms_are_refused(form):
    with pytest.raises(BrokenPicture, match="00.tar, key 7: expected a whole JPEG, PNG or WebP"):
        decode(encoded(Image.new("RGB", (4, 4)), form), "00.tar, key 7")


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_cut_picture_is_refused(form):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encoded(noise, form)
    with pytest.raises(BrokenPicture, match="key 7: expected a whole"):
        decode(content[: len(content) // 2], "key 7")


def test_a_picture_over_the_cap_is_not_decoded(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 99)
    with pytest.raises(BrokenPicture, match="10 x 10 pixels, at most 99"):
        decode(encoded(Image.new("RGB", (10, 10))), "x")


def test_a_probe_tells_the_size_of_a_picture_whose_pixels_are_not_there():
    for form in ("PNG", "JPEG"):
        content = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 90, 3), np.uint8)), form)
        assert probe(content[: len(content) // 2], "x") == (90, 64)


def test_a_file_over_the_cap_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_BYTES", 99)
    for look in (probe, decode):
        with pytest.raises(BrokenPicture, match="x: 100 bytes, at most 99"):
            look(bytes(100), "x")


@pytest.mark.parametrize("look", [probe, decode])
def test_a_complaint_is_one_short_line(look):
    with pytest.raises(BrokenPicture) as caught:
        look(png(2**31 - 1, 2**31 - 1) + b"\n" * 1000, "shard 00000, key 7")
    told = str(caught.value)
    assert told.startswith("shard 00000, key 7: expected a whole JPEG") and len(told) < 300 and "\n" not in told


def test_the_perceptual_hash_is_near_for_the_same_picture_and_far_for_another():
    ramp = np.linspace(0, 255, 96)
    first = Image.fromarray(np.stack([ramp[None].repeat(96, 0)] * 3, -1).astype(np.uint8))
    again = decode(encoded(first.resize((64, 80)), "JPEG", quality=60), "x")
    other = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    assert 0 <= phash(first) < 2**64
    assert (phash(first) ^ phash(again)).bit_count() <= 8 < 20 < (phash(first) ^ phash(other)).bit_count()
