"""What a step is trained on: the same for any number of processes, and whether it was made ahead or not."""

import json
import shutil
from contextlib import closing

import pytest
import torch
from safetensors.torch import load_file, save_file

from slam.core.draw import posterior_noise, stream
from slam.data.latents import Latents, batch_indices
from slam.files import sha256, write_json
from slam.training import batches
from slam.training.batches import global_draw, local_batches, prepared
from slam.training.journal import read_journal
from slam.training.loop import train
from slam.training.plan import make_plan

SHAPE, T = (4, 8, 8), 1000


@pytest.fixture
def moments(latents, tmp_path):
    """The latents, each with a standard deviation of 0.5 beside it."""
    folder = shutil.copytree(latents, tmp_path / "moments")
    index = json.loads((folder / "index.json").read_text())
    for shard in index["shards"]:
        file = folder / shard["file"]
        tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
        save_file(tensors | {"latents_std": torch.full_like(tensors["latents"], 0.5)}, file)
        shard["sha256"] = sha256(file)
    write_json(folder / "index.json", index)
    return folder


def joined(micro_batches):
    return [torch.cat(parts) for parts in zip(*(batch[:2] for batch in micro_batches), strict=True)]


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("stored", ["latents", "moments"])
def test_ranks_together_hold_the_batch_of_one(ranks, stored, profile, request):
    folder = request.getfixturevalue(stored)
    plan, data = make_plan(profile(**{"train.micro_batch": 2}), folder), Latents(folder, "train")
    draw = global_draw(plan, SHAPE, T, 5)
    whole = joined(local_batches(plan, data, draw, 5, 0, 1))
    parts = [joined(local_batches(plan, data, draw, 5, rank, ranks)) for rank in range(ranks)]
    for one, several in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(one, torch.cat(several))


def test_with_moments_z0_is_mean_plus_std_times_a_noise_of_seed_and_step(profile, latents, moments):
    plan = make_plan(profile(), latents)
    plain, both = Latents(latents, "train"), Latents(moments, "train")
    for step in (0, 7):
        draw = global_draw(plan, SHAPE, T, step)
        z0, ids = joined(local_batches(plan, both, draw, step, 0, 1))
        mean, same_ids = plain.gather(batch_indices(96, 8, 0, step))
        noise = posterior_noise(0, step, 8, SHAPE)
        assert torch.equal(z0, mean + 0.5 * noise) and torch.equal(ids, same_ids)
        assert not torch.equal(noise, draw.noise)  # with which z_t is made
    assert not torch.equal(posterior_noise(0, 0, 8, SHAPE), posterior_noise(0, 1, 8, SHAPE))
    assert not torch.equal(posterior_noise(0, 0, 8, SHAPE), posterior_noise(1, 0, 8, SHAPE))


def test_the_stream_of_the_posterior_is_no_steps_own():
    seeds = [stream(seed, step).initial_seed() for seed in (0, 1) for step in range(1000)]
    others = [stream(seed, step ^ 1 << 31).initial_seed() for seed in (0, 1) for step in range(1000)]
    assert len({*seeds, *others}) == 4000


def test_batches_made_ahead_are_those_made_when_asked(profile, latents):
    plan, data = make_plan(profile(), latents), Latents(latents, "train")
    with closing(prepared(plan, data, SHAPE, T, range(3, 30), 0, 1)) as made:
        for step, ahead in zip(range(3, 30), made, strict=True):
            asked = local_batches(plan, data, global_draw(plan, SHAPE, T, step), step, 0, 1)
            for a, b in zip(ahead, asked, strict=True):
                assert torch.equal(a.latents, b.latents) and torch.equal(a.text, b.text)
                assert torch.equal(a.draw.noise, b.draw.noise) and torch.equal(a.draw.ladder[0], b.draw.ladder[0])


def test_training_on_moments_is_another_training_and_the_same_each_time(profile, latents, moments, tmp_path):
    def losses(folder, out):
        out.mkdir()
        make_plan(profile(**{"train.steps": 2, "train.checkpoint_every": 2}), folder).write(out)
        assert train(out) == 0
        return [line["loss"] for line in read_journal(out / "journal.jsonl")]

    first = losses(moments, tmp_path / "a")
    assert first == losses(moments, tmp_path / "b") and first != losses(latents, tmp_path / "c")


def test_the_thread_that_makes_them_starts_none_for_pytorch_beside_the_step_s(profile, latents, monkeypatch):
    counts, own = [], torch.get_num_threads()
    monkeypatch.setattr(batches, "local_batches", lambda *_: counts.append(torch.get_num_threads()) or [])
    torch.set_num_threads(2)
    try:
        list(prepared(make_plan(profile(), latents), Latents(latents, "train"), SHAPE, T, range(3), 0, 1))
        assert (counts, torch.get_num_threads()) == ([1, 1, 1], 2)
    finally:
        torch.set_num_threads(own)
