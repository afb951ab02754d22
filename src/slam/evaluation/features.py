"""The features of the Frechet distance. clean-fid is the front end: its resize, its Inception, its batch pass.

A picture becomes RGB, is cropped at the centre to its short side and brought to `resolution` by Lanczos, as GigaGAN
and DMD2 do for COCO; then clean-fid resizes it to the network's input. B batch, H W pixels, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from cleanfid.features import InceptionV3W
from cleanfid.fid import get_batch_features
from cleanfid.resize import make_resizer
from PIL import Image
from torch import Tensor

from slam.errors import SlamError
from slam.files import sha256
from slam.models.judge import Judge

INCEPTION = "inception-2015-12-05.pt"  # clean-fid loads it by this name
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"


@dataclass(frozen=True)
class FeatureNetwork:
    name: str
    sha256: str  # of its weights' file
    resolution: int  # pixels: every picture is brought to it first
    side: int  # pixels: the network's input
    network: Callable[[Tensor], Tensor]  # float [B, 3, side, side] in [0, 255] -> [B, F]
    device: torch.device
    is_inception: bool = False

    def __call__(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """Pictures uint8 [H, W, 3], each of its own size, to features float32 [B, F]."""
        resize = make_resizer("PIL", False, "bicubic", (self.side, self.side))  # clean-fid's mode "clean"
        pixels = np.stack([resize(square(picture, self.resolution)) for picture in pictures])
        return get_batch_features(torch.from_numpy(pixels).permute(0, 3, 1, 2), self.network, self.device)


def load_features(path: str | Path, device: str = "cpu") -> FeatureNetwork:
    """The network at `path`: a judge's folder, or the file of the Inception weights.

    Raises `SlamError` when it is neither, or the file is not the one that every published FID was computed with.
    """
    path = Path(path)
    if path.is_dir():
        judge = Judge.load(path).to(device)
        weights = sha256(path / "model.safetensors")
        return FeatureNetwork(str(path), weights, judge.size, judge.size, judge.features, torch.device(device))
    if not path.is_file():
        raise SlamError(
            f"evaluate.features = {str(path)!r}: expected a judge's folder or the file {INCEPTION}, found nothing;"
            " for the tiny teacher's judge run `slam teacher`"
        )
    found = sha256(path)
    if path.name != INCEPTION or found != INCEPTION_SHA256:
        raise SlamError(
            f"evaluate.features = {str(path)!r}: expected the Inception weights {INCEPTION} with sha256"
            f" {INCEPTION_SHA256}, found {path.name} with {found}; FID from other weights cannot be compared"
        )
    inception = InceptionV3W(str(path.parent), download=False).to(device).eval()
    return FeatureNetwork(str(path), found, 256, 299, inception, torch.device(device), True)


def square(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture uint8 [H, W, 3], cropped at the centre to its short side and brought to uint8 [side, side, 3]."""
    height, width = picture.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    picture = picture[top : top + short, left : left + short]
    if short == side:
        return picture
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def rows(pictures: Tensor) -> np.ndarray:
    """Pictures uint8 [B, 3, H, W] as clean-fid and PIL take them, uint8 [B, H, W, 3]."""
    return pictures.permute(0, 2, 3, 1).contiguous().numpy()
