"""Attention over few tokens on the CPU, as two matrix products.

PyTorch's fused kernel is made for long sequences; over few tokens it takes longer than the plain products (measured on
two cores of Zen 5, forward and backward: for [32, 2, 16, 64] 0.40 against 0.27 ms in float32 and 1.65 against 0.31 in
bfloat16; at 64 tokens the two are level in float32).
"""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

FEW = 64 * 64  # scores of a head; from there on the fused kernel is no slower in float32


class FewTokens(AttnProcessor2_0):
    """diffusers' fused attention, but for what is short, plain and on the CPU."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states [B, N, D], encoder_hidden_states [B, M, E] or None for self-attention; to [B, N, D]."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        few = hidden_states.device.type == "cpu" and hidden_states.shape[1] * context.shape[1] <= FEW
        if not few or attention_mask is not None or not _is_plain(attn, hidden_states):
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        dtype = query.dtype
        # Softmax in a low precision would round the weights of a mean; so few numbers cost the same in float32.
        with torch.autocast("cpu", enabled=False):
            query, key, value = (x.float().unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value))
            weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(-1)
            mixed = (weights @ value).transpose(1, 2).flatten(2).to(dtype)
        for layer in attn.to_out:  # the projection, and dropout
            mixed = layer(mixed)
        return mixed


def _is_plain(attn: Attention, hidden_states: Tensor) -> bool:
    """Nothing but projections around the attention, as in Stable Diffusion's U-Net."""
    norms = (attn.spatial_norm, attn.group_norm, attn.norm_q, attn.norm_k, attn.norm_cross)
    unscaled = attn.rescale_output_factor == 1.0 and not attn.residual_connection
    return hidden_states.ndim == 3 and unscaled and not any(norms)
