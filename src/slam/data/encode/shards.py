"""One shard of latents, made from its rows and the pictures alone: again after a kill, or by another process.

N rows, n of them encoded, B batch, C h w latent, H = W = resolution, L tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from slam.config import Encode
from slam.data.encode.pictures import Rejected, Square, squares
from slam.data.records import Raw
from slam.errors import SlamError
from slam.models.diffusion import LatentDiffusion, load
from slam.models.precision import PRECISIONS

CHECKED = 4  # samples of each shard's first batch that are encoded in fp32 too
# Largest difference from fp32, relative to the norm of those samples' latents. The tiny VAE has 0.0006 in fp16, 0.005
# in bf16; a VAE that overflows fp16 in some layer is off by far more, or not finite.
TOLERANCE = {"bf16": 0.05, "fp16": 0.01}
FP16_MAX = torch.finfo(torch.float16).max

# What is known of each row when its shard is made. `row` counts the shard's samples; null: left out.
FACTS = pa.schema(
    [("row", pa.int64()), ("width", pa.int32()), ("height", pa.int32())]
    + [("reason", pa.string()), ("detail", pa.string())]
    + [("finite", pa.bool_()), ("mean", pa.float32()), ("std", pa.float32()), ("spread", pa.float32())]
)


class Encoder(NamedTuple):
    config: Encode
    model: LatentDiffusion  # VAE and tokenizer, at the config's precision
    exact: LatentDiffusion  # the VAE in fp32; the same as `model` if that is fp32
    threads: int  # that decode pictures


def load_encoder(config: Encode, teacher: str, device: str, threads: int) -> Encoder:
    """Raises `SlamError` when the VAE cannot shrink the resolution evenly."""
    model = load(teacher, parts=("vae", "tokenizer"), dtype=PRECISIONS[config.precision], device=device)
    exact = model if config.precision == "fp32" else load(teacher, parts=("vae",), device=device)
    if config.resolution % (factor := shrinkage(model)):
        raise SlamError(
            f"encode.resolution = {config.resolution} must be a multiple of {factor}: the VAE shrinks by it"
        )
    return Encoder(config, model, exact, threads)


def shrinkage(model: LatentDiffusion) -> int:
    return 2 ** (len(model.vae.config.block_out_channels) - 1)


def encode_rows(
    rows: pa.Table, source: Raw, encoder: Encoder, update: Callable[[int], object]
) -> tuple[dict[str, Tensor], pa.Table]:
    """The shard of `rows`, and FACTS of each of them.

    The shard: {"latents": float16 [n, C, h, w], "input_ids": int32 [n, L]}, and for the posterior `moments`
    {"latents_std": float16 [n, C, h, w]}. Calls `update` with the number of rows that are done with.

    Raises `SlamError` for latents that are not finite, too large for float16, or not those of fp32.
    """
    config, facts = encoder.config, []
    found = squares(rows, source, config.resolution, config.batch, encoder.threads)
    good = _good(rows["key"].to_pylist(), found, facts)
    side = config.resolution // shrinkage(encoder.model)
    shape = (len(rows), encoder.model.vae.config.latent_channels, side, side)
    names = ("latents", "latents_std") if config.posterior == "moments" else ("latents",)
    stored = {name: torch.empty(shape, dtype=torch.float16) for name in names}
    count = told = 0
    while batch := list(islice(good, config.batch)):
        keys = [key for key, _ in batch]
        pixels = torch.from_numpy(np.stack([pixels for _, pixels in batch])).to(encoder.model.vae.device)
        pixels = pixels.permute(0, 3, 1, 2)
        if not count:
            _compare(pixels[:CHECKED], encoder)
        for name, values in _encode(keys, pixels, encoder).items():
            stored[name][count : count + len(batch)] = values
        count += len(batch)
        update(len(facts) - told)
        told = len(facts)
    update(len(facts) - told)
    shard = {name: values[:count] for name, values in stored.items()}
    kept = torch.tensor(["row" in fact for fact in facts])
    shard["input_ids"] = encoder.model.tokenize(rows["caption"].to_pylist())[kept].to(torch.int32)
    return shard, _table(facts, shard)


def _good(
    keys: Sequence[str], found: Iterable[Square | Rejected], facts: list[dict]
) -> Iterator[tuple[str, np.ndarray]]:
    """(key, pixels) of the pictures that are good; notes in `facts` what is known of each, good or not."""
    count = 0
    for key, one in zip(keys, found, strict=True):
        if isinstance(one, Rejected):
            facts.append(one._asdict())
        else:
            facts.append({"row": count, "width": one.width, "height": one.height})
            count += 1
            yield key, one.pixels


def _table(facts: list[dict], shard: dict[str, Tensor]) -> pa.Table:
    """FACTS of all rows: those noted while reading, and the statistics of each sample as it is stored."""
    values = shard["latents"].float().flatten(1)
    statistics = {"finite": values.isfinite().all(1), "mean": values.mean(1), "std": values.std(1, correction=0)}
    if "latents_std" in shard:
        statistics["spread"] = shard["latents_std"].float().flatten(1).mean(1)
    kept = (fact for fact in facts if "row" in fact)
    for i, fact in enumerate(kept):
        fact |= {name: column[i].item() for name, column in statistics.items()}
    return pa.Table.from_pylist(facts, FACTS)


def _posterior(pixels: Tensor, model: LatentDiffusion) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the scaled latents [B, C, h, w], at the model's precision, of uint8 pixels."""
    with torch.inference_mode():
        return model.posterior(pixels.to(model.vae.dtype) / 127.5 - 1)


def _encode(keys: Sequence[str], pixels: Tensor, encoder: Encoder) -> dict[str, Tensor]:
    """What is stored of a batch, float16 on the CPU, of pixels uint8 [B, 3, H, W]."""
    config = encoder.config
    mean, std = _posterior(pixels, encoder.model)
    if not (finite := (mean.isfinite() & std.isfinite()).flatten(1).all(1)).all():
        first = int(finite.logical_not().nonzero()[0])
        exact, _ = _posterior(pixels[first : first + 1], encoder.exact)
        raise SlamError(
            f"key {keys[first]}: the VAE gave values that are not finite at encode.precision = {config.precision}; "
            f"in fp32 the largest is {exact.abs().max().item():.6g}: "
            "use fp32, or another VAE where fp32 is not finite either"
        )
    if config.posterior == "sample":
        noise = torch.stack([noise_of(config.seed, key, tuple(mean.shape[1:])) for key in keys])
        mean = mean.float() + std.float() * noise.to(mean.device)
    values = {"latents": mean, "latents_std": std} if config.posterior == "moments" else {"latents": mean}
    return {name: _half(value, keys) for name, value in values.items()}


def _half(values: Tensor, keys: Sequence[str]) -> Tensor:
    """`values` [B, ...] in float16 on the CPU. Raises `SlamError` naming the first that does not fit."""
    half = values.to("cpu", torch.float16)
    if not (fits := half.isfinite().flatten(1).all(1)).all():
        first = int(fits.logical_not().nonzero()[0])
        raise SlamError(
            f"key {keys[first]}: the latent {values[first].abs().max().item():.6g} is too large for fp16, "
            f"in which latents are stored (at most {FP16_MAX:.0f}): is the VAE's scaling_factor right?"
        )
    return half


def _compare(pixels: Tensor, encoder: Encoder) -> None:
    """Raises `SlamError` when the VAE at the config's precision strays from fp32 by more than TOLERANCE."""
    precision = encoder.config.precision
    if precision not in TOLERANCE:
        return
    exact, low = (_posterior(pixels, model)[0].float() for model in (encoder.exact, encoder.model))
    difference = ((low - exact).norm() / exact.norm()).item()
    if low.isfinite().all() and difference > TOLERANCE[precision]:  # if not finite, `_encode` names the sample
        raise SlamError(
            f"encode.precision = {precision} is too narrow for this VAE: its latents differ from those of fp32 by "
            f"{difference:.2%} of their norm, at most {TOLERANCE[precision]:.0%} is allowed: use fp32"
        )


def noise_of(seed: int, key: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32, a function of the arguments alone: whatever batch or process the sample is in."""
    digest = hashlib.sha256(f"{seed} {key}".encode()).digest()
    philox = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    return torch.from_numpy(np.random.Generator(philox).standard_normal(shape, dtype=np.float32))
