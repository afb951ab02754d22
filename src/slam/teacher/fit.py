"""The loop that trains every part of the tiny teacher."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from slam.progress import progress


def fit(
    module: nn.Module,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    lr: float,
    label: str,
    weight_decay: float = 0.0,
    warmup: float = 0.03,
    ema: float | None = None,
) -> None:
    """Minimise `loss(step)` over the parameters of `module` by AdamW, warm-up then cosine to zero.

    With `ema`, the module ends with the running average of its parameters at that decay.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
    rise = max(1, int(warmup * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / rise, 0.5 + 0.5 * math.cos(math.pi * i / steps))
    )
    average = [p.detach().clone() for p in parameters] if ema else None
    recent = None
    module.train()
    with progress(range(steps), label) as bar:
        for step in bar:
            value = loss(step)
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            if average:
                with torch.no_grad():
                    torch._foreach_lerp_(average, parameters, 1 - min(ema, (1 + step) / (10 + step)))
            if step % 20 == 0:
                value = value.item()
                recent = value if recent is None else 0.9 * recent + 0.1 * value
                bar.set_postfix(loss=f"{recent:.4f}", refresh=False)
    if average:
        with torch.no_grad():
            torch._foreach_copy_(parameters, average)
    module.eval()
