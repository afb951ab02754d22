"""A score from 1 to 10 computed from a picture's pixels: its contrast, its sharpness, its freedom from noise.

It measures whether a picture is technically sound, and nothing else: not composition, not subject, not taste. It
stands in for the score of a trained aesthetic predictor where pictures are drawn and no such predictor applies.
The scales were chosen so that clean pictures of `slam.data.shapes` score 6 or more, and pictures that are visibly
blurred, faded, noisy or crushed by JPEG score less. Sharpness is per pixel: scores of pictures of different
resolutions do not compare.
"""

from __future__ import annotations

import numpy as np

# Where each measure gives the score 6, as seen on drawn pictures (fractions of full scale).
CONTRAST = 0.33  # range of the strongest channel: 1% of clean pictures are below 0.39, faded ones end at 0.30
SHARPNESS = 0.37  # steepest edges, in picture contrast per pixel: clean from 0.39, blurred up to 0.26
NOISE = 0.03  # standard deviation of pixel noise: clean below 0.005, noisy from 0.05
SIX = 5 / 9  # the score 6 on the scale 0 to 1


def score(images: np.ndarray) -> np.ndarray:
    """Scores float64 [N] in [1, 10] of pictures uint8 [N, H, W, 3]: as good as the weakest of the three measures."""
    x = np.moveaxis(images, -1, 0).astype(np.float32) / 255  # [3, N, H, W]
    c = contrast(x)
    clean = 1 - (1 - SIX) * noise(x) / NOISE
    soundness = np.minimum.reduce([SIX * c / CONTRAST, SIX * sharpness(x, c) / SHARPNESS, clean])
    return 1 + 9 * np.clip(soundness, 0, 1).astype(np.float64)


def contrast(x: np.ndarray) -> np.ndarray:
    """[N]: the range from the 1st to the 99th percentile, of the channel where it is widest."""
    low, high = np.percentile(x.reshape(*x.shape[:2], -1), [1, 99], axis=-1)
    return (high - low).max(axis=0)


def sharpness(x: np.ndarray, c: np.ndarray) -> np.ndarray:
    """[N]: the 97th percentile of the gradient's length, in units of the picture's own contrast per pixel."""
    dx, dy = np.diff(x, axis=3)[:, :, :-1], np.diff(x, axis=2)[:, :, :, :-1]
    gradient = np.sqrt((dx**2 + dy**2).max(axis=0))
    return np.percentile(gradient.reshape(len(c), -1), 97, axis=-1) / (c + 0.02)


def noise(x: np.ndarray) -> np.ndarray:
    """[N]: standard deviation of pixel noise, from a mask that answers neither to flat areas nor to slopes.

    J. Immerkaer, Fast Noise Variance Estimation, 1996; the median makes edges, a minority of the pixels, not count.
    """
    rows = x[:, :, :-2] - 2 * x[:, :, 1:-1] + x[:, :, 2:]
    mask = rows[..., :-2] - 2 * rows[..., 1:-1] + rows[..., 2:]
    strongest = np.abs(mask).max(axis=0)
    return np.median(strongest.reshape(len(strongest), -1), axis=-1) / 6
