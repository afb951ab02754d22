import pytest
import torch
from transformers import CLIPModel, CLIPProcessor

from slam.data import shapes
from slam.errors import SlamError
from slam.evaluation.clip_score import load_clip


def test_equals_the_logits_of_transformers_own_pair(random_clip):
    """CLIPModel gives logits = scale * cosine for every pair; ours are its diagonal."""
    pictures = shapes.draw(5, 0)
    pixels = torch.from_numpy(pictures.images).permute(0, 3, 1, 2)
    clip = load_clip(str(random_clip))
    model, processor = CLIPModel.from_pretrained(random_clip), CLIPProcessor.from_pretrained(random_clip)
    inputs = processor(text=pictures.captions, images=list(pixels), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits_per_image.diagonal() / model.logit_scale.exp()
    ours = clip.cosines(pixels, clip.texts(pictures.captions, batch=2))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_a_caption_longer_than_the_model_takes_is_cut(random_clip):
    clip = load_clip(str(random_clip))
    assert clip.texts(["a red circle on " * 40]).shape == (1, 8)


def test_a_folder_that_is_no_clip_is_named(tmp_path):
    with pytest.raises(SlamError, match="evaluate.clip = .*expected a CLIPModel"):
        load_clip(str(tmp_path))
