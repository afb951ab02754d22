"""From a picture to the square that the VAE takes, against PIL and torchvision."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from slam.data.encode.pictures import centre_square
from slam.data.encode.sheet import draw_sheet, psnr
from slam.data.pictures import decode


def scene(width, height):
    """Smooth, with an edge or two: like a photograph, and no two parts alike."""
    y, x = np.mgrid[:height, :width]
    planes = [127 + 120 * np.sin(x / 37 + p) * np.cos(y / 23 - p) for p in range(3)]
    image = np.stack(planes, -1).astype(np.uint8)
    image[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 90)
    return Image.fromarray(image)


def reference(image, side):
    """What the public training scripts do: the short side resized, the centre cropped."""
    return np.asarray(tv.center_crop(tv.resize(image, side, InterpolationMode.LANCZOS), [side, side]))


@pytest.mark.parametrize("size", [(256, 256), (384, 256), (256, 384), (768, 192), (200, 600)])
def test_the_short_side_is_resized_and_the_centre_cut(size):
    """Where both cut at whole pixels, the two orders of resizing and cutting give the same pixels."""
    found = centre_square(scene(*size), 64)
    assert found.shape == (64, 64, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - reference(scene(*size), 64)).max() <= 1


@pytest.mark.parametrize("size", [(333, 257), (257, 333), (641, 480), (70, 65)])
def test_odd_sizes_are_off_by_less_than_a_pixel(size):
    assert np.abs(centre_square(scene(*size), 64).astype(int) - reference(scene(*size), 64)).mean() < 6


def test_a_picture_of_the_right_size_is_left_alone():
    exact = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(centre_square(Image.fromarray(exact), 32), exact)


def stored(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def transparent():
    image = scene(96, 64).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((96, 64)))
    return image


def on_white(image):
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (scene(96, 64).convert("L"), lambda image: image.convert("RGB")),
        (scene(64, 96).quantize(40), lambda image: image.convert("RGB")),
        (transparent(), on_white),
        (scene(96, 64).convert("LA"), on_white),
    ],
    ids=["grey", "palette", "alpha", "grey with alpha"],
)
def test_every_kind_of_picture_becomes_rgb(image, expected):
    found = centre_square(decode(stored(image), "x"), 32)
    assert np.abs(found.astype(int) - reference(expected(image), 32)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_before_it_is_cut(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = stored(scene(128, 64), "JPEG", exif=exif, quality=95, subsampling=0)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert upright.size == ((64, 128) if orientation >= 5 else (128, 64))
    found = centre_square(decode(content, "x"), 32)
    assert np.abs(found.astype(int) - reference(upright.convert("RGB"), 32)).max() <= 1


def test_the_psnr_is_that_of_the_definition():
    a = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(a, a + 5) == pytest.approx(20 * np.log10(255 / 5))
    assert psnr(a + 5, a) == pytest.approx(34.15, abs=0.01) and psnr(a, a) == np.inf


def test_large_pictures_are_shrunk_on_the_sheet_and_small_ones_enlarged_by_a_whole_factor():
    large = draw_sheet([np.zeros((512, 512, 3), np.uint8)] * 8, [np.full((512, 512, 3), 255, np.uint8)] * 8)
    assert large.width < 2300 and large.getpixel((84 + 100, 12 + 100)) == (0, 0, 0)
    assert large.getpixel((84 + 100, 12 + 256 + 4 + 100)) == (255, 255, 255)
    dots = np.zeros((32, 32, 3), np.uint8)
    dots[::2] = 255
    small = np.asarray(draw_sheet([dots], [dots]))[12 : 12 + 96, 84 : 84 + 96]
    assert np.array_equal(small[::3, ::3], dots) and np.array_equal(small[2::3, 2::3], dots)
