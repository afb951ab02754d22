"""AdamW on a CPU, by PyTorch's fused kernel and without what goes on around it."""

from __future__ import annotations

import torch
from torch import Tensor


class LeanAdamW(torch.optim.AdamW):
    """`torch.optim.AdamW(fused=True)` on a CPU, the same bits in half the time on a tiny student of 208 tensors.

    torch counts steps in one tensor for each parameter, and clones each tensor that is not contiguous, which
    channels_last weights are not. Here they share one count, and are seen in the order of their memory.
    Every parameter must have a gradient, of its own strides, which is what autograd makes.
    """

    def __init__(self, parameters: list[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, lr, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self) -> None:
        group, found_inf = self.param_groups[0], getattr(self, "found_inf", None)
        parameters = group["params"]
        if not self.state:
            count = torch.zeros(())
            for value in parameters:
                moments = {name: torch.zeros_like(value) for name in ("exp_avg", "exp_avg_sq")}
                self.state[value] = {"step": count, **moments}
                if value.stride() != value.grad.stride():  # the kernel would take wrong elements, silently
                    raise ValueError(
                        f"weight {tuple(value.shape)}: strides {value.stride()}, gradient {value.grad.stride()}"
                    )
        states = [self.state[value] for value in parameters]
        count = states[0]["step"]
        count += 1
        beta1, beta2 = group["betas"]
        torch._fused_adamw_(
            [in_memory(value) for value in parameters],
            [in_memory(value.grad) for value in parameters],
            [in_memory(state["exp_avg"]) for state in states],
            [in_memory(state["exp_avg_sq"]) for state in states],
            [],
            [count] * len(parameters),
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            grad_scale=None,
            found_inf=found_inf,
        )
        if found_inf is not None:
            count -= found_inf

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        states = list(self.state.values())
        for state in states:
            state["step"] = states[0]["step"]


def in_memory(value: Tensor) -> Tensor:
    """A contiguous view of a dense tensor."""
    return value if value.is_contiguous() else value.permute(0, 2, 3, 1)
