from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from slam.config import parse
from slam.data import shapes
from slam.data.latents import identity
from slam.files import sha256, write_json
from slam.models.diffusion import load


@pytest.fixture(scope="session")
def latents(random_teacher, tmp_path_factory) -> Path:
    """96 random latents with real captions, as the encode stage leaves them."""
    folder = tmp_path_factory.mktemp("latents")
    ids = load(random_teacher, ("tokenizer",)).tokenize(shapes.draw(96, 3).captions)
    values = torch.randn(96, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    file = folder / "train-00000.safetensors"
    save_file({"latents": values.half(), "input_ids": ids.int()}, file)
    shard = {"file": file.name, "split": "train", "count": 96, "bytes": file.stat().st_size, "sha256": sha256(file)}
    parts = {part: identity(str(random_teacher), part) for part in ("vae", "tokenizer")}
    write_json(folder / "index.json", {**parts, "scaling_factor": 0.5, "latent_shape": [4, 8, 8], "shards": [shard]})
    return folder


@pytest.fixture
def profile(random_teacher):
    """profile(**{"train.steps": 6}): the tiny profile on the random teacher, cut down, with changes."""
    tiny = yaml.safe_load(Path("params.yaml").read_text())["profiles"]["tiny"]

    def make(**changes):
        values = {**tiny, "teacher": str(random_teacher)}
        values["distill"] = {**tiny["distill"], "k": 20}
        values["train"] = {
            **tiny["train"],
            "lr": 3e-4,
            "steps": 6,
            "batch": 8,
            "checkpoint_every": 3,
            "log_every": 2,
            "keep": 4,
        }
        for key, value in changes.items():
            section, name = key.split(".")
            values[section] = {**values[section], name: value}
        return parse(values, "test")

    return make
