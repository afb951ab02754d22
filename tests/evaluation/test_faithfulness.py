import numpy as np
import pytest
import torch

from slam.data import shapes
from slam.errors import SlamError
from slam.evaluation.faithfulness import Faithful, faithfulness, read
from slam.models.judge import Judge


class Labels(Judge):
    """A judge that was told the truth: its answers are the labels, whatever it is shown."""

    def __init__(self, labels):
        super().__init__()
        self.labels = torch.from_numpy(labels)

    def forward(self, pixels):
        columns = zip(self.attributes.items(), self.labels.T, strict=True)
        return {name: torch.eye(len(classes))[column] for (name, classes), column in columns}


@pytest.fixture(scope="module")
def pictures():
    return shapes.draw(200, 9)


def counts(judge, pictures):
    return read(judge, torch.from_numpy(pictures.images).permute(0, 3, 1, 2), pictures.captions)


def test_true_pictures_are_wholly_faithful(pictures):
    assert faithfulness(counts(Labels(pictures.labels), pictures)) == Faithful(1.0, 1.0)


def test_one_wrong_attribute_costs_its_share(pictures):
    """Every shape is read wrong; a caption always names the shape, so no caption is right."""
    wrong = pictures.labels.copy()
    wrong[:, 0] = (wrong[:, 0] + 1) % len(shapes.SHAPES)
    named = sum(len(shapes.named(caption)) for caption in pictures.captions)
    assert faithfulness(counts(Labels(wrong), pictures)) == pytest.approx(Faithful(1 - 200 / named, 0.0))


def test_captions_that_name_nothing_do_not_count():
    assert faithfulness(np.array([[0, 0], [1, 2], [3, 3]])) == Faithful(4 / 5, 1 / 2)
    with pytest.raises(SlamError, match="set it to null"):
        faithfulness(np.array([[0, 0]]))
