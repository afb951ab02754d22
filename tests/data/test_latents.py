import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from slam.data.latents import Latents, batch_indices, identity
from slam.errors import SlamError
from slam.files import sha256


@pytest.fixture
def folder(tmp_path):
    """Two shards of train, 3 + 4 samples, and one of validation, whose samples hold their own number."""
    shards, rows = [], []
    for file, split, numbers in (("a", "train", range(3)), ("b", "train", range(3, 7)), ("c", "validation", [7, 8])):
        column = torch.tensor(list(numbers))
        tensors = {"latents": column.half().view(-1, 1, 1, 1).expand(-1, 4, 2, 2), "input_ids": column.int()[:, None]}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / file)
        shards.append({"file": file, "split": split, "count": len(numbers), "sha256": sha256(tmp_path / file)})
        rows += [{"split": split, "caption": f"caption {n}"} for n in numbers]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "manifest.parquet")
    (tmp_path / "index.json").write_text(json.dumps({"shards": shards}))
    return tmp_path


@pytest.mark.parametrize("order", [[6, 0, 3, 2, 0], [6, 0], [5]])
def test_samples_come_in_the_order_asked_from_any_shard(order, folder):
    data = Latents(folder, "train")
    latents, input_ids = data.gather(order)
    assert len(data) == 7 and latents.dtype == torch.float32 and input_ids.dtype == torch.int64
    assert torch.equal(latents, torch.tensor(order).float().view(-1, 1, 1, 1).expand(-1, 4, 2, 2))
    assert input_ids.tolist() == [[n] for n in order]
    assert data.captions(order) == [f"caption {n}" for n in order]


def test_a_split_is_counted_by_itself(folder):
    held = Latents(folder, "validation")
    assert held.gather(np.arange(len(held)))[1].tolist() == [[7], [8]] and held.captions([1]) == ["caption 8"]


@pytest.mark.parametrize("index", [-1, 7])
def test_a_sample_outside_the_split_is_refused(folder, index):
    with pytest.raises(IndexError):
        Latents(folder, "train").gather([0, index])


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("opened", [False, True])
def test_a_flipped_bit_is_found_on_opening_and_on_opening_again(opened, folder):
    if opened:
        Latents(folder, "train")
    before = (folder / "b").stat()
    flip(folder / "b")
    os.utime(folder / "b", ns=(before.st_atime_ns, before.st_mtime_ns))  # as if nothing had been written
    Latents(folder, "validation")
    with pytest.raises(SlamError, match="b: expected sha256 .* found .* run `slam encode` again"):
        Latents(folder, "train")


def test_a_shard_is_hashed_once_and_again_when_it_was_touched(folder, monkeypatch):
    hashed, digest = [], hashlib.file_digest

    def note(file, name):
        hashed.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", note)
    for _ in range(2):
        Latents(folder, "train")
    assert sorted(hashed) == ["a", "b"]
    os.utime(folder / "b")
    Latents(folder, "train")
    assert sorted(hashed) == ["a", "b", "b"]
    folder.with_name(f".{folder.name}.verified.json").write_text("{")  # a broken memory is no memory
    Latents(folder, "train")
    assert sorted(hashed) == ["a", "a", "b", "b", "b"]


def test_what_failed_is_not_remembered_and_what_passed_is(folder):
    flip(folder / "b")
    for _ in range(2):
        with pytest.raises(SlamError, match="b: expected sha256"):
            Latents(folder, "train")
    assert json.loads(folder.with_name(f".{folder.name}.verified.json").read_text()).keys() == {"a"}


def test_of_stored_moments_the_mean_is_read_or_with_noise_a_sample(folder):
    numbers = torch.arange(4).half()
    tensors = {
        "latents": numbers.view(-1, 1, 1, 1).expand(-1, 4, 2, 2).contiguous(),
        "latents_std": (numbers / 8).view(-1, 1, 1, 1).expand(-1, 4, 2, 2).contiguous(),
        "input_ids": numbers.int()[:, None],
    }
    save_file(tensors, folder / "m")
    shard = {"file": "m", "split": "train", "count": 4, "sha256": sha256(folder / "m")}
    (folder / "index.json").write_text(json.dumps({"shards": [shard]}))
    data, noise = Latents(folder, "train"), torch.randn(3, 4, 2, 2)
    order = torch.tensor([3.0, 1, 3]).view(-1, 1, 1, 1)
    assert data.has_std and torch.equal(data.gather([3, 1, 3])[0], order.expand(-1, 4, 2, 2))
    assert torch.equal(data.gather([3, 1, 3], noise)[0], order + order / 8 * noise)


def test_a_missing_shard_or_split_is_named(folder):
    with pytest.raises(SlamError, match="expected a split 'test', found train, validation"):
        Latents(folder, "test")
    (folder / "a").unlink()
    with pytest.raises(SlamError, match="a does not exist: run `slam encode` again"):
        Latents(folder, "train")


@given(n=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 5), epochs=st.integers(1, 4))
def test_every_epoch_visits_every_sample_once(n, batch, seed, epochs):
    steps = -(-n * epochs // batch)
    order = np.concatenate([batch_indices(n, batch, seed, step) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(order[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(st.integers(0, 30), st.integers(0, 3))
def test_the_order_is_a_function_of_the_step_and_not_of_the_batch_size(step, seed):
    whole = batch_indices(23, 12, seed, step)
    halves = [batch_indices(23, 6, seed, 2 * step + i) for i in (0, 1)]
    assert whole.dtype == np.int64 and np.array_equal(whole, np.concatenate(halves))


def test_epochs_and_seeds_differ():
    orders = [tuple(batch_indices(50, 50, seed, step)) for seed in (0, 1) for step in (0, 1)]
    assert len(set(orders)) == 4


def test_the_identity_of_a_vae_changes_with_its_weights(tmp_path):
    (tmp_path / "vae").mkdir()
    weights = tmp_path / "vae/model.safetensors"
    save_file({"w": torch.zeros(2)}, weights)
    before = identity(str(tmp_path), "vae")
    save_file({"w": torch.ones(2)}, weights)
    assert identity(str(tmp_path), "vae") != before
    assert identity("some/hub-id", "vae") == {"name": "some/hub-id", "sha256": None}
