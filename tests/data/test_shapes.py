import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slam.data import shapes
from slam.data.shapes import ATTRIBUTES


def test_the_same_seed_draws_the_same_pictures_and_another_does_not():
    a, b, c = shapes.draw(20, 5), shapes.draw(20, 5), shapes.draw(20, 6)
    assert np.array_equal(a.images, b.images) and a.captions == b.captions
    assert not np.array_equal(a.images, c.images)


def test_pictures_of_a_tuple_of_words_are_seeded_by_all_of_them():
    assert not np.array_equal(shapes.draw(5, (1, 1)).images, shapes.draw(5, (1, 2)).images)


@given(st.tuples(*(st.integers(0, len(values) - 1) for values in ATTRIBUTES.values())), st.integers(0, 99))
def test_named_reads_back_what_a_caption_names(labels, seed):
    full = shapes.caption(np.array(labels), np.random.default_rng(seed), omit=(0, 0, 0))
    assert shapes.named(full) == {name: ATTRIBUTES[name][i] for name, i in zip(ATTRIBUTES, labels, strict=True)}
    some = shapes.named(shapes.caption(np.array(labels), np.random.default_rng(seed)))
    assert some.items() <= shapes.named(full).items() and {"shape", "colour"} <= some.keys()


def test_the_shape_and_the_background_never_have_one_colour():
    labels = shapes.draw(2000, 0).labels
    assert (labels[:, 1] != labels[:, 2]).all()


def test_a_picture_has_the_colours_that_its_labels_say():
    drawn = shapes.draw(300, 1)
    palette = np.array(list(shapes.COLOURS.values()))
    corner = drawn.images[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(1) / 255  # the slope cancels out over four corners
    assert np.abs(corner - palette[drawn.labels[:, 2]]).max() < 0.15
    solid = np.isin(drawn.labels[:, 0], [shapes.SHAPES.index(s) for s in ("circle", "square", "cross")])
    shift = 6 * np.array(list(shapes.POSITIONS.values()))[drawn.labels[:, 4]]
    x, y = np.round(15.5 + shift).astype(int).T
    middle = drawn.images[np.arange(300), y, x] / 255
    assert np.abs(middle - palette[drawn.labels[:, 1]])[solid].max() < 0.1


@pytest.mark.parametrize("name", ["square", "triangle", "star", "cross"])
def test_polygon_distance_is_zero_on_the_outline_and_negative_inside(name):
    vertices = shapes.POLYGONS[name]
    middles = (vertices + np.roll(vertices, -1, axis=0)) / 2
    assert np.abs(shapes.signed_distance(name, np.concatenate([vertices, middles]))).max() < 1e-12
    assert shapes.signed_distance(name, np.zeros((1, 2)))[0] < 0 < shapes.signed_distance(name, np.full((1, 2), 2.0))[0]


def test_distance_to_a_square_is_the_closed_form():
    p = np.random.default_rng(0).uniform(-2, 2, (500, 2))
    q = np.abs(p) - 0.85
    exact = np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)
    assert np.allclose(shapes.signed_distance("square", p), exact)
