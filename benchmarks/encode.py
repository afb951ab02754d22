"""What the data side of `encode` costs (read, hash, decode, crop, write) beside the VAE's own time at 512x512.

    python -m benchmarks.encode [--pictures 64] [--vae 3]

The VAE has Stable Diffusion 1.5's architecture with random weights, in fp32 on the CPU; its time does not depend on
them. The pictures are JPEGs of 768x640 with detail at every scale. Times are processor seconds of this process, all
threads together, so that what else runs on the machine counts little: a picture's share of a core. Target: the data
side costs less than 10% of the VAE's time.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from diffusers import AutoencoderKL
from PIL import Image

from slam.data.encode.pictures import centre_square, squares
from slam.data.encode.plan import Job
from slam.data.encode.progress import PROGRESS, keep
from slam.data.encode.shards import FACTS
from slam.data.pictures import decode
from slam.data.records import Raw, Shard

SIDE, SIZE, ROUNDS, TARGET = 512, (768, 640), 5, 0.10
WRITTEN = 1024  # samples of the shard that is written
# Stable Diffusion 1.5's vae/config.json
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 512,
}


def photograph(seed: int) -> bytes:
    """A JPEG with as much detail as a photograph: noise at every scale, more of it at the larger ones."""
    generator = np.random.default_rng(seed)
    total = np.zeros((SIZE[1], SIZE[0], 3), np.float32)
    for octave in range(2, 9):
        small = generator.normal(0, 1, (2**octave, 2**octave, 3)).astype(np.float32)
        for channel in range(3):
            total[..., channel] += np.asarray(Image.fromarray(small[..., channel]).resize(SIZE)) / 2 ** (octave - 2)
    file = io.BytesIO()
    Image.fromarray((128 + 45 * total).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def shard_of_pictures(folder: Path, count: int) -> tuple[pa.Table, Raw, int]:
    """A tar of JPEGs, the manifest's rows of them, and their bytes."""
    contents = [photograph(number) for number in range(count)]
    names = [f"{number:09d}" for number in range(count)]
    with tarfile.open(folder / "00000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in zip(names, contents, strict=True):
            member = tarfile.TarInfo(f"{name}.jpg")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with tarfile.open(folder / "00000.tar") as tar:
        offsets = [member.offset for member in tar.getmembers()]
    rows = {
        "shard": [0] * count,
        "split": ["train"] * count,
        "key": names,
        "caption": ["a photograph"] * count,
        "sha256": [hashlib.sha256(content).hexdigest() for content in contents],
        "member": [f"{name}.jpg" for name in names],
        "offset": offsets,
    }
    place = Shard("00000", "img2dataset", folder / "00000.parquet", folder / "00000.tar")
    return pa.table(rows), Raw("img2dataset", [place], verbatim=True), sum(map(len, contents))


def seconds(work, rounds: int = ROUNDS) -> float:
    """Median processor seconds of `work()`."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found)


def written(folder: Path) -> float:
    """Processor seconds a sample of writing a shard: serialising, hashing, the rows and the sidecar."""
    tensors = {
        "latents": torch.randn(WRITTEN, 4, SIDE // 8, SIDE // 8).half(),
        "input_ids": torch.zeros(WRITTEN, 77, dtype=torch.int32),
    }
    job = Job("train-00000.safetensors", "train", np.arange(WRITTEN))
    rows = pa.table({"key": [f"{number:09d}" for number in range(WRITTEN)], "caption": ["a photograph"] * WRITTEN})
    facts = pa.Table.from_pylist([{"row": number} for number in range(WRITTEN)], FACTS)
    (folder / PROGRESS).mkdir()
    return seconds(lambda: keep(folder, job, tensors, rows, facts)) / WRITTEN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--vae", type=int, default=3, help="pictures that the VAE encodes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows, source, size = shard_of_pictures(folder, args.pictures)
        read = seconds(lambda: list(squares(rows, source, SIDE, 32, threads=2))) / args.pictures
        content = photograph(0)
        image = decode(content, "x")
        parts = {
            "decode": seconds(lambda: decode(content, "x")),
            "crop": seconds(lambda: centre_square(image, SIDE)),
            "sha256": seconds(lambda: hashlib.sha256(content).hexdigest()),
        }
        write = written(folder)
    data = read + write
    print(f"{args.pictures} JPEGs of {SIZE[0]}x{SIZE[1]}, {size / args.pictures / 1024:.0f} KiB each; a picture:")
    print(f"read, hash, decode and crop in threads {1e3 * read:7.2f} ms", end="  (by itself: ")
    print(", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in parts.items()) + ")")
    print(f"write                                  {1e3 * write:7.2f} ms")
    print(f"data side                              {1e3 * data:7.2f} ms of a core", flush=True)
    vae = AutoencoderKL(**VAE).eval().to(memory_format=torch.channels_last)
    pixels = torch.rand(1, 3, SIDE, SIDE) * 2 - 1
    with torch.inference_mode():
        encode = seconds(lambda: vae.encode(pixels).latent_dist.mean, args.vae)
    print(f"VAE, fp32 on this CPU                  {1e3 * encode:7.0f} ms of a core (median of {args.vae})")
    verdict = "reached" if data < TARGET * encode else "MISSED"
    print(f"data side / VAE = {data / encode:.3%}; target {TARGET:.0%} {verdict}")
    print(f"one core feeds a GPU that encodes {1 / data:.0f} pictures a second")


if __name__ == "__main__":
    main()
