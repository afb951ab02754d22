"""CLIP score: 100 times the mean cosine between a picture's embedding and its caption's (Hessel et al. 2021).

B batch, H W pixels, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from slam.errors import SlamError


@dataclass(frozen=True)
class ClipScore:
    name: str
    model: CLIPModel
    tokenizer: Any
    processor: Any

    @torch.inference_mode()
    def texts(self, captions: Sequence[str], batch: int = 256) -> Tensor:
        """Unit embeddings [N, E] of the captions, cut at the length that the model takes."""
        length = self.model.config.text_config.max_position_embeddings
        parts = []
        for start in range(0, len(captions), batch):
            tokens = self.tokenizer(
                list(captions[start : start + batch]),
                padding="max_length",
                max_length=length,
                truncation=True,
                return_tensors="pt",
            ).to(self.model.device)
            parts.append(F.normalize(self.model.get_text_features(**tokens).pooler_output, dim=-1))
        return torch.cat(parts)

    @torch.inference_mode()
    def cosines(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Cosine [B] of each picture, uint8 [B, 3, H, W], with its own row of unit embeddings [B, E]."""
        pixels = self.processor(images=list(pictures), return_tensors="pt")["pixel_values"].to(self.model.device)
        images = F.normalize(self.model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
        return (images * texts).sum(-1).cpu()


def load_clip(name: str, device: str = "cpu") -> ClipScore:
    """A CLIPModel with its tokenizer and image processor from one folder or hub id. Raises `SlamError`."""
    disable_progress_bar()  # of the weights that it reads
    try:
        model = CLIPModel.from_pretrained(name, dtype=torch.float32).to(device).eval().requires_grad_(False)
        tokenizer = CLIPTokenizer.from_pretrained(name)
        processor = CLIPImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise SlamError(
            f"evaluate.clip = {name!r}: expected a CLIPModel's folder or hub id with its tokenizer and image processor,"
            f" found {str(error).splitlines()[0]}"
        ) from None
    return ClipScore(name, model, tokenizer, processor)
