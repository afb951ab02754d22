"""The tiny world: one coloured shape on a coloured background, with a caption that names some of what is seen.

Everything is a function of a seed: `draw(n, seed)` gives the same pictures on every machine. A picture is drawn
from signed distances (negative inside), so that its edges are antialiased.

N pictures, H = W = SIZE pixels, V vertices.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

SIZE = 32  # pixels a side

COLOURS = {
    "red": (0.86, 0.15, 0.13),
    "green": (0.15, 0.60, 0.25),
    "blue": (0.15, 0.32, 0.86),
    "yellow": (0.96, 0.85, 0.20),
    "purple": (0.55, 0.20, 0.70),
    "orange": (0.97, 0.53, 0.10),
    "white": (0.95, 0.95, 0.95),
    "black": (0.07, 0.07, 0.07),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
SIZES = {"small": (5.0, 6.0), "large": (8.6, 10.0)}  # radius in pixels, from and to
POSITIONS = {"center": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
SHIFT = 6.0  # pixels from the centre to a named position
EDGE = 1.5  # width in pixels of the antialiased edge

# Every attribute a caption can name, and its values in the order of the class index.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "background": tuple(COLOURS),
    "size": tuple(SIZES),
    "position": tuple(POSITIONS),
}


class Pictures(NamedTuple):
    images: np.ndarray  # uint8 [N, H, W, 3]
    labels: np.ndarray  # int64 [N, len(ATTRIBUTES)], class indices in the order of ATTRIBUTES
    captions: list[str]


def draw(n: int, seed: int | tuple[int, ...]) -> Pictures:
    """`n` pictures with captions. The colour of the shape and of the background always differ."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(len(values), size=n) for values in ATTRIBUTES.values()], axis=1)
    colour, background = 1, 2
    clash = rng.integers(1, len(COLOURS), size=n)  # moves an equal background to another colour, uniformly
    labels[:, background] = (labels[:, colour] + clash) % len(COLOURS)
    return Pictures(render(labels, rng), labels, [caption(row, rng) for row in labels])


def render(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 [N, H, W, 3]: the labels drawn with jitter in place, radius, angle, hue and a background gradient."""
    n = len(labels)
    shape, colour, background, size, position = labels.T
    low, high = np.array(list(SIZES.values()))[size].T
    radius = rng.uniform(low, high)
    centre = (SIZE - 1) / 2 + SHIFT * np.array(list(POSITIONS.values()))[position] + rng.uniform(-1, 1, (n, 2))
    angle = rng.uniform(-0.2, 0.2, n)

    axis = np.arange(SIZE)
    x = (axis[None, None, :] - centre[:, 0, None, None]) / radius[:, None, None]
    y = (axis[None, :, None] - centre[:, 1, None, None]) / radius[:, None, None]
    x, y = np.broadcast_arrays(x, y)
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    points = np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)  # [N, H, W, 2], in radii
    inside = np.zeros((n, SIZE, SIZE))
    for index, name in enumerate(SHAPES):
        rows = shape == index
        distance = signed_distance(name, points[rows]) * radius[rows, None, None]  # pixels
        inside[rows] = np.clip(0.5 - distance / EDGE, 0, 1)

    palette = np.array(list(COLOURS.values()))
    paint = palette[colour] + rng.uniform(-0.05, 0.05, (n, 3))
    direction = rng.normal(size=(n, 2))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    ramp = np.linspace(-1, 1, SIZE)
    slope = direction[:, 0, None, None] * ramp[None, None, :] + direction[:, 1, None, None] * ramp[None, :, None]
    ground = (palette[background] + rng.uniform(-0.05, 0.05, (n, 3)))[:, None, None] + 0.08 * slope[..., None]
    image = ground + inside[..., None] * (paint[:, None, None] - ground)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def signed_distance(shape: str, p: np.ndarray) -> np.ndarray:
    """Distance in radii from points `p` [..., 2] to the outline of a shape of radius 1; negative inside."""
    if shape == "circle":
        return np.linalg.norm(p, axis=-1) - 0.95
    if shape == "ring":
        return np.abs(np.linalg.norm(p, axis=-1) - 0.72) - 0.25
    return polygon_distance(p, POLYGONS[shape])


def polygon_distance(p: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Signed distance from points [..., 2] to a simple polygon [V, 2]: nearest edge, sign by crossing number."""
    squared = np.full(p.shape[:-1], np.inf)
    odd = np.zeros(p.shape[:-1], dtype=bool)
    for a, b in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        edge, to = b - a, p - a
        along = np.clip((to @ edge) / (edge @ edge), 0, 1)
        squared = np.minimum(squared, ((to - along[..., None] * edge) ** 2).sum(-1))
        if a[1] != b[1]:
            crosses = (p[..., 1] >= a[1]) != (p[..., 1] >= b[1])
            odd ^= crosses & (p[..., 0] < a[0] + (p[..., 1] - a[1]) * edge[0] / edge[1])
    return np.sqrt(squared) * np.where(odd, -1, 1)


def _spokes(count: int, radii: tuple[float, ...], turn: float) -> np.ndarray:
    theta = turn + 2 * np.pi * np.arange(count) / count
    return np.resize(radii, count)[:, None] * np.stack([np.cos(theta), np.sin(theta)], axis=1)


_C = 0.33  # half the width of the cross's arms
POLYGONS = {
    "square": 0.85 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
    "triangle": _spokes(3, (1.15,), -np.pi / 2) + (0, 0.2),
    "star": _spokes(10, (1.15, 0.5), -np.pi / 2),
    "cross": np.array(
        [(-_C, -1), (_C, -1), (_C, -_C), (1, -_C), (1, _C), (_C, _C)]
        + [(_C, 1), (-_C, 1), (-_C, _C), (-1, _C), (-1, -_C), (-_C, -_C)]
    ),
}


def caption(labels: np.ndarray, rng: np.random.Generator, omit: tuple[float, float, float] = (0.15, 0.3, 0.3)) -> str:
    """A caption for one row of labels; background, size and position are left out with the chances `omit`."""
    shape, colour, background, size, position = (
        values[i] for values, i in zip(ATTRIBUTES.values(), labels, strict=True)
    )
    names_background, names_size, names_position = rng.random(3) >= omit
    subject = _article(f"{size} {colour} {shape}" if names_size else f"{colour} {shape}")
    ground = f"{_article(background)} background"
    if names_position:
        return f"{subject} at the {position}" + (f" of {ground}" if names_background else "")
    return subject + (f" on {ground}" if names_background else "")


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def named(text: str) -> dict[str, str]:
    """The attributes that a caption names, read from its words: the inverse of `caption`.

    >>> named("a large red circle on a blue background")
    {'shape': 'circle', 'colour': 'red', 'background': 'blue', 'size': 'large'}
    """
    found = {}
    subject, _, ground = re.sub(r"[^a-z ]", " ", text.lower()).partition("background")[0].rpartition(" of ")
    if not subject:  # "… on a blue background", or no background at all
        subject, _, ground = ground.partition(" on ")
    for attribute, values in ATTRIBUTES.items():
        words = (ground if attribute == "background" else subject).split()
        value = next((word for word in words if word in values), None)
        if value:
            found[attribute] = value
    return found
