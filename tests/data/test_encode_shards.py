"""One shard: what is stored of the posterior, and the precisions that a VAE can take."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from slam.data.encode.pictures import squares
from slam.data.encode.plan import Manifest
from slam.data.encode.shards import encode_rows, load_encoder, noise_of
from slam.data.records import read_raw
from slam.errors import SlamError
from slam.files import write_json
from tests.data.conftest import ENCODE, TINY


@pytest.fixture(scope="module")
def rows(filtered):
    manifest = Manifest(filtered / "manifest.parquet")
    return manifest.rows(manifest.plan(20)[0])


def shard(rows, drawn, teacher=TINY, **changes):
    encoder = load_encoder(ENCODE.model_copy(update=changes), str(teacher), "cpu", threads=2)
    tensors, facts = encode_rows(rows, read_raw(drawn / "raw"), encoder, lambda count: None)
    return tensors, facts.to_pandas()


def test_moments_are_the_mean_and_the_standard_deviation_of_the_vae(rows, drawn):
    mean, _ = shard(rows, drawn)
    both, facts = shard(rows, drawn, posterior="moments")
    assert torch.equal(both["latents"], mean["latents"])
    assert both["latents_std"].dtype == torch.float16 and both["latents_std"].shape == both["latents"].shape
    encoder = load_encoder(ENCODE, TINY, "cpu", 1)
    pixels = np.stack([s.pixels for s in squares(rows, read_raw(drawn / "raw"), 32, 4, 1)])
    normal = encoder.model.vae.encode(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist
    expected = torch.exp(0.5 * normal.logvar) * encoder.model.vae.config.scaling_factor
    assert torch.allclose(both["latents_std"].float(), expected, rtol=5e-3)
    assert np.allclose(facts["spread"], expected.mean((1, 2, 3)), rtol=1e-3)
    assert np.allclose(facts["mean"], both["latents"].float().mean((1, 2, 3)), atol=1e-5)
    assert np.allclose(facts["std"], both["latents"].float().flatten(1).numpy().std(1), atol=1e-5)


def test_a_sample_is_mean_plus_std_times_a_noise_of_its_seed_and_key_alone(rows, drawn):
    moments, _ = shard(rows, drawn, posterior="moments")
    drawn_once, _ = shard(rows, drawn, posterior="sample")
    noise = torch.stack([noise_of(0, key, (4, 8, 8)) for key in rows["key"].to_pylist()])
    expected = moments["latents"].float() + moments["latents_std"].float() * noise
    assert torch.allclose(drawn_once["latents"].float(), expected, atol=5e-3)
    other_batch, _ = shard(rows.slice(7, 5), drawn, posterior="sample", batch=3)
    assert torch.allclose(other_batch["latents"].float(), drawn_once["latents"][7:12].float(), atol=5e-3)
    other_seed, _ = shard(rows, drawn, posterior="sample", seed=1)
    assert (other_seed["latents"] - drawn_once["latents"]).abs().mean() > 0.5 * moments["latents_std"].float().mean()


def test_the_noise_is_standard_normal_and_differs_by_key_and_seed():
    noise = torch.stack([noise_of(seed, str(key), (4, 8, 8)) for seed in (0, 1) for key in range(200)])
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    correlation = torch.corrcoef(noise.flatten(1)) - torch.eye(400)
    assert correlation.abs().max() < 0.4  # 5 sigma of 256 numbers would be 0.31; equal noise 1
    assert torch.equal(noise_of(3, "a", (4, 8, 8)), noise_of(3, "a", (4, 8, 8)))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_narrow_precision_is_near_fp32(precision, rows, drawn):
    low, exact = shard(rows, drawn, precision=precision)[0]["latents"], shard(rows, drawn)[0]["latents"]
    assert 0 < (low.float() - exact.float()).norm() / exact.float().norm() < {"fp16": 2e-3, "bf16": 0.02}[precision]


@pytest.fixture
def altered(tmp_path):
    """altered(change, **config): the shipped VAE after change(weights), and with another configuration."""

    def make(change=lambda weights: None, **config):
        shutil.copytree(f"{TINY}/vae", tmp_path / "vae")
        shutil.copytree(f"{TINY}/tokenizer", tmp_path / "tokenizer")
        file = tmp_path / "vae/diffusion_pytorch_model.safetensors"
        weights = {name: tensor.float() for name, tensor in load_file(file).items()}
        change(weights)
        save_file(weights, file)
        write_json(tmp_path / "vae/config.json", json.loads((tmp_path / "vae/config.json").read_text()) | config)
        return tmp_path

    return make


def overflow(weights):
    """Activations of the first layer beyond fp16; in fp32 the norms after it take the factor out again."""
    for name in ("weight", "bias"):
        weights[f"encoder.conv_in.{name}"] *= 1e5


def test_a_vae_that_overflows_fp16_is_refused_and_taken_in_fp32(altered, rows, drawn):
    teacher = altered(overflow)
    assert shard(rows, drawn, teacher)[0]["latents"].isfinite().all()
    key = rows["key"][0].as_py()
    with pytest.raises(SlamError, match=f"key {key}: .* not finite at encode.precision = fp16; in fp32 the largest is"):
        shard(rows, drawn, teacher, precision="fp16")


def coarse(weights):
    """Latents that are a small difference of large numbers: the bias of the last layer, taken off by the next."""
    weights["encoder.conv_out.bias"] += 200
    kernel = weights["quant_conv.weight"]
    weights["quant_conv.bias"] -= 200 * kernel.sum((1, 2, 3))


def test_a_vae_that_loses_digits_in_fp16_is_refused(altered, rows, drawn):
    teacher = altered(coarse)
    assert torch.allclose(
        shard(rows, drawn, teacher)[0]["latents"].float(), shard(rows, drawn)[0]["latents"].float(), atol=5e-3
    )
    with pytest.raises(SlamError, match=r"differ from those of fp32 by [0-9.]+% of their norm, at most 1% is allowed"):
        shard(rows, drawn, teacher, precision="fp16")


def test_a_latent_that_fp16_cannot_hold_is_named(altered, rows, drawn):
    with pytest.raises(SlamError, match=r"key \d+: the latent [0-9.e+]+ is too large for fp16.*at most 65504"):
        shard(rows, drawn, altered(scaling_factor=1e5))


def test_a_plan_keeps_the_order_of_each_split_over_row_groups(filtered, tmp_path):
    table = pq.read_table(filtered / "manifest.parquet")
    mixed = table.take(np.random.default_rng(0).permutation(len(table)))
    pq.write_table(mixed, tmp_path / "manifest.parquet", row_group_size=7)
    manifest = Manifest(tmp_path / "manifest.parquet")
    jobs = manifest.plan(10)
    for split in ("train", "validation"):
        found = [key for job in jobs if job.split == split for key in manifest.rows(job)["key"].to_pylist()]
        assert found == mixed.to_pandas().query("split == @split")["key"].to_list()
    assert [len(job.rows) for job in jobs if job.split == "validation"] == [10, 10]
    other = mixed.set_column(mixed.column_names.index("split"), "split", [["test"] * len(mixed)])
    pq.write_table(other, tmp_path / "manifest.parquet")
    with pytest.raises(SlamError, match=f"{len(mixed)} rows are of no split: expected train, validation, found test"):
        Manifest(tmp_path / "manifest.parquet").plan(10)
