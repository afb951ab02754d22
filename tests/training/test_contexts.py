"""Contexts made before the first step, where a split's are few."""

import numpy as np
import pytest
import torch

from slam.data.latents import Latents
from slam.models.diffusion import load
from slam.training.contexts import MIB, Encoded, encoded
from slam.training.objective import autocast, context_of


@pytest.fixture(scope="module")
def model():
    return load("teachers/tiny", ("text_encoder", "tokenizer"))


def test_a_sample_has_the_context_of_its_own_caption(latents, model):
    data = Latents(latents, "train")
    indices = np.array([len(data) - 1, 3, 0, 3])
    plain, ids = data.gather(indices)
    same, contexts = Encoded(data, model.embed_tokens).gather(indices)
    assert torch.equal(same, plain)
    with torch.no_grad():
        torch.testing.assert_close(contexts, model.embed_tokens(ids), rtol=1e-5, atol=1e-5)


def test_they_are_made_where_they_fit_and_only_there(latents, model):
    data, calls = Latents(latents, "train"), []

    def embed(ids):
        calls.append(len(ids))
        return model.embed_tokens(ids)

    null = torch.zeros(1, 4, MIB // len(data) // 16)  # float32: just under one MiB for all of the split
    assert isinstance(encoded(data, embed, null, 1), Encoded)
    assert sum(calls) == len(data)
    assert max(calls) <= 64
    wider = torch.zeros(1, 4, MIB // len(data) // 16 + 1)
    assert encoded(data, embed, wider, 1) is data
    assert encoded(data, embed, null, 0) is data
    assert sum(calls) == len(data)


def test_in_a_low_precision_they_are_off_by_about_what_rounding_them_would_be(model):
    with torch.no_grad():
        ids = model.tokenize(["a large red circle", "two small blue squares", ""])
        exact, low = (context_of(model, autocast(precision, "cpu"), ids) for precision in ("fp32", "bf16"))
    rounded = (exact.bfloat16().float() - exact).norm()
    assert low.dtype == torch.float32
    assert 0.5 * rounded < (low - exact).norm() < 4 * rounded
