"""The LAION aesthetics predictor: a score of about 1 to 10, linear in a picture's CLIP ViT-L/14 embedding.

The public head (christophschuhmann/improved-aesthetic-predictor, `sac+logos+ava1-l14-linearMSE.pth`) is five linear
layers with dropout and no activation between them, so it is one vector and one bias: `convert` makes that of it, once.

B batch, E embedding (768 for the public head).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPModel

from slam.errors import SlamError
from slam.files import whole_file
from slam.models import weights_only

# Of the file in that repository (3,714,759 bytes), as a dozen public programs pin it.
PUBLIC_SHA256 = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
# The layers' places in that network's nn.Sequential (dropouts stand between), and their inputs and outputs.
LAYERS = {0: (768, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}
SHAPES = {f"layers.{i}.weight": (outs, ins) for i, (ins, outs) in LAYERS.items()} | {
    f"layers.{i}.bias": (outs,) for i, (_, outs) in LAYERS.items()
}
MAX_BYTES = 64 * 2**20  # of the file that `convert` reads
TIME_LIMIT = 300.0  # seconds for the child that reads it; nearly all of them are the import of torch
CONVERT = "slam score --convert sac+logos+ava1-l14-linearMSE.pth"


@dataclass(frozen=True)
class Predictor:
    clip: CLIPModel
    processor: Any
    weight: Tensor  # float32 [E]
    bias: Tensor  # float32 []

    def pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        """What CLIP is shown of RGB pictures of any size: float32 [B, 3, 224, 224], normalised.

        Resized by Pillow's bicubic filter, as for the embeddings that the head was fitted to.
        """
        return self.processor(images=list(pictures), return_tensors="pt")["pixel_values"]

    @torch.inference_mode()
    def score(self, pixels: Tensor) -> Tensor:
        """Scores float32 [B], on the CPU, of what `pixels` gave."""
        embedded = self.clip.get_image_features(pixel_values=pixels.to(self.clip.device, self.clip.dtype)).pooler_output
        return (F.normalize(embedded.float(), dim=-1) @ self.weight + self.bias).cpu()


def load_predictor(clip: str, head: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Predictor:
    """The CLIP of a local folder or hub id and the head that `convert` wrote. Raises `SlamError` if they do not fit."""
    weight, bias = load_head(head)
    try:
        model, loaded = CLIPModel.from_pretrained(clip, dtype=dtype, use_safetensors=True, output_loading_info=True)
        processor = CLIPImageProcessorPil.from_pretrained(clip)
    except (OSError, ValueError, RuntimeError) as error:
        raise SlamError(f"score.clip = {clip!r}: {EXPECTED}, found {str(error).strip().splitlines()[0]}") from None
    # transformers would go on with random numbers in their place
    if missing := sorted(key for key in loaded["missing_keys"] if key.startswith("vis")):
        raise SlamError(f"score.clip = {clip!r}: {EXPECTED}, found none of {', '.join(missing[:3])}")
    if model.config.projection_dim != len(weight):
        raise SlamError(
            f"score.clip = {clip!r} gives embeddings of {model.config.projection_dim} numbers, score.head = "
            f"{str(head)!r} takes {len(weight)}: the public head goes with openai/clip-vit-large-patch14"
        )
    model = model.to(device).eval().requires_grad_(False)
    return Predictor(model, processor, weight.to(device), bias.to(device))


EXPECTED = (
    "expected the folder or hub id of a transformers CLIP model (vision_model and visual_projection in safetensors, "
    "preprocessor_config.json)"
)


def load_head(head: str | Path) -> tuple[Tensor, Tensor]:
    """float32 [E] and float32 []."""
    try:
        with safe_open(head, framework="pt") as file:
            weight, bias = file.get_tensor("weight").float(), file.get_tensor("bias").float()
    except FileNotFoundError:
        raise SlamError(f"score.head = {str(head)!r} does not exist: run `{CONVERT} --out {head}` first") from None
    except (OSError, SafetensorError) as error:
        raise SlamError(
            f"score.head = {str(head)!r}: expected the safetensors file that `{CONVERT}` writes, found {error}"
        ) from None
    if weight.ndim != 1 or bias.ndim != 0:
        raise SlamError(
            f"score.head = {str(head)!r}: expected a vector and a number, found shapes {list(weight.shape)} and "
            f"{list(bias.shape)}: run `{CONVERT}` again"
        )
    return weight, bias


def convert(source: Path, out: Path) -> dict:
    """The public head at `source`, a pickle, as `out`: weight float64 [768], bias float64 [], the source's sha256.

    Raises `SlamError` when the file is not that network; nothing in it is run, and `out` stays as it was.
    """
    tensors, sha256 = _unpickled(source)
    weight, bias = collapse(_checked(tensors, source))
    with whole_file(out) as partial:
        save_file({"weight": weight, "bias": bias}, partial, {"source": source.name, "source_sha256": sha256})
    return {"head": str(out), "source sha256": sha256, "is the public file": sha256 == PUBLIC_SHA256}


def collapse(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """W5(W4(W3(W2(W1 x + b1) + b2) + b3) + b4) + b5 = weight . x + bias: float64 [E] and float64 []."""
    weight, bias = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for i in reversed(LAYERS):  # from the last: a row vector times each matrix
        bias = bias + weight @ tensors[f"layers.{i}.bias"].double()
        weight = weight @ tensors[f"layers.{i}.weight"].double()
    return weight[0].contiguous(), bias[0].clone()


def _unpickled(source: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a pickle and its sha256, read by a child process that shares nothing with this one."""
    if not source.is_file():
        raise SlamError(f"{source} does not exist: {DOWNLOAD}")
    if (size := source.stat().st_size) > MAX_BYTES:
        raise SlamError(f"{source}: expected about 4 MB, found {size} bytes, at most {MAX_BYTES} are read: {DOWNLOAD}")
    with TemporaryDirectory() as folder:
        out = Path(folder) / "tensors.safetensors"
        command = [sys.executable, "-I", weights_only.__file__, str(source.absolute()), str(out)]
        # None of this process's variables, which may hold a token or name a proxy, but those that find libraries.
        env = {name: os.environ[name] for name in ("SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
        try:
            child = subprocess.run(
                command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_LIMIT
            )
        except subprocess.TimeoutExpired:
            raise SlamError(f"{source}: reading it took more than {TIME_LIMIT:.0f} s: {DOWNLOAD}") from None
        if child.returncode:
            said = child.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {child.returncode}"]
            raise SlamError(f"{source}: expected the state dict of the LAION head, found {said[-1]}: {DOWNLOAD}")
        with safe_open(out, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()["sha256"]  # noqa: SIM118


DOWNLOAD = (
    "download sac+logos+ava1-l14-linearMSE.pth from github.com/christophschuhmann/improved-aesthetic-predictor "
    f"(sha256 {PUBLIC_SHA256})"
)


def _checked(tensors: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    where = f"{source}: expected the LAION head's five linear layers"
    if missing := sorted(SHAPES.keys() - tensors.keys()):
        raise SlamError(f"{where}, found no {missing[0]} among {len(tensors)} tensors: {DOWNLOAD}")
    if unknown := sorted(tensors.keys() - SHAPES.keys()):
        raise SlamError(f"{where}, found {unknown[0]} beside them: {DOWNLOAD}")
    for key, shape in SHAPES.items():
        value = tensors[key]
        if tuple(value.shape) != shape or not value.is_floating_point():
            raise SlamError(
                f"{where} with {key} {list(shape)}, found {str(value.dtype)[6:]} {list(value.shape)}: {DOWNLOAD}"
            )
        if not value.isfinite().all():
            raise SlamError(f"{where}, found values in {key} that are not finite: {DOWNLOAD}")
    return tensors
