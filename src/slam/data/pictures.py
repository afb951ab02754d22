"""Bytes of unknown origin to pictures: three formats, and caps on bytes and pixels that are checked before decoding.

Compressed text and colour profiles in a PNG are bounded by Pillow itself, 1 MiB a chunk and 64 MiB together
(PngImagePlugin.MAX_TEXT_CHUNK, MAX_TEXT_MEMORY); a picture that has more is broken.
"""

from __future__ import annotations

import io
import struct

import imagehash
from PIL import Image, ImageOps

from slam.errors import SlamError

EXTENSIONS = ("jpg", "jpeg", "png", "webp")
FORMATS = ("JPEG", "PNG", "WEBP")  # told by the content, whatever the name says
MAX_BYTES = 64 * 2**20  # of a picture's file
MAX_PIXELS = 64 * 2**20  # 256 MiB decoded, at 4 bytes each
MAX_DETAIL = 200  # characters of a decoder's complaint


class BrokenPicture(SlamError):  # noqa: N818, the picture is
    """The bytes are no picture that is decoded here. Costs that picture and nothing else."""


def decode(content: bytes, where: str) -> Image.Image:
    """An RGB picture, upright, transparent parts on white. `where` names it in the error.

    Raises `BrokenPicture`.
    """
    try:
        with _open(content, where) as image:
            image = ImageOps.exif_transpose(image)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except BrokenPicture:
        raise
    except Exception as error:  # of foreign bytes Pillow raises what it likes: struct.error, KeyError, …
        raise _broken(where, error) from None


def probe(content: bytes, where: str) -> tuple[int, int]:
    """(width, height) in pixels as the header tells them, not turned upright. Decodes nothing.

    Raises `BrokenPicture`.
    """
    with _open(content, where) as image:
        return image.size


def phash(image: Image.Image) -> int:
    """The 64-bit perceptual hash (DCT of 32 x 32 grey pixels); the Hamming distance of two tells how alike they are."""
    return int(str(imagehash.phash(image)), 16)


def _open(content: bytes, where: str) -> Image.Image:
    if len(content) > MAX_BYTES:
        raise BrokenPicture(f"{where}: {len(content)} bytes, at most {MAX_BYTES} are read")
    try:
        _check_pixels(*(_webp_size(content) or (0, 0)), where)
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        _check_pixels(*image.size, where)
    except BrokenPicture:
        raise
    except Exception as error:  # as in `decode`
        raise _broken(where, error) from None
    return image


def _check_pixels(width: int, height: int, where: str) -> None:
    if width * height > MAX_PIXELS:
        raise BrokenPicture(f"{where}: {width} x {height} pixels, at most {MAX_PIXELS} are decoded")


def _webp_size(content: bytes) -> tuple[int, int] | None:
    """The canvas of an extended WebP: Pillow has room made for it before its size can be asked. RFC 9649, 2.7."""
    if content[:4] != b"RIFF" or content[8:16] != b"WEBPVP8X" or len(content) < 30:
        return None
    low_w, high_w, low_h, high_h = struct.unpack("<HBHB", content[24:30])
    return 1 + low_w + (high_w << 16), 1 + low_h + (high_h << 16)


def _broken(where: str, error: Exception) -> BrokenPicture:
    told = " ".join(str(error).split())[:MAX_DETAIL] or type(error).__name__
    return BrokenPicture(f"{where}: expected a whole JPEG, PNG or WebP picture, found {told}")
