"""The samplers that are compared, behind one function. Their steps are diffusers' own; the loop is ours.

B batch, C h w latent, L tokens, D text width.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, LCMScheduler, UniPCMultistepScheduler
from torch import Tensor

from slam.errors import SlamError
from slam.models.diffusion import LatentDiffusion
from slam.models.embedding import guidance_features

# A teacher's own config may ask for "leading" spacing, which starts a single DDIM step at t = 1 and so draws nothing.
# "trailing" (Lin et al. 2024, arXiv:2305.08891, Table 2) starts every step count at t = 999, where the noise is:
# 1 step [999], 2 steps [999, 499], 4 steps [999, 749, 499, 249], for DDIM, DPM-Solver++ and UniPC alike.
TRAILING = {"timestep_spacing": "trailing", "steps_offset": 0}

# All end at clean latents (sigma = 0): the multistep solvers by "zero", with a first-order last step, which diffusers
# advises under 15 steps; DDIM by `set_alpha_to_one`. No clipping: latents are not confined to [-1, 1].
MULTISTEP = {**TRAILING, "solver_order": 2, "lower_order_final": True, "final_sigmas_type": "zero"}

SAMPLERS: dict[str, Callable[[Any], Any]] = {
    "ddim": lambda config: DDIMScheduler.from_config(config, **TRAILING, set_alpha_to_one=True, clip_sample=False),
    # Noise prediction; diffusers ends it at t = 0's own sigma, 0.03, not at 0.
    "dpm": lambda config: DPMSolverMultistepScheduler.from_config(
        config, **{**MULTISTEP, "final_sigmas_type": "sigma_min"}, algorithm_type="dpmsolver", solver_type="midpoint"
    ),
    "dpm++": lambda config: DPMSolverMultistepScheduler.from_config(
        config, **MULTISTEP, algorithm_type="dpmsolver++", solver_type="midpoint"
    ),
    "unipc": lambda config: UniPCMultistepScheduler.from_config(config, **MULTISTEP, solver_type="bh2"),
    # The student's: 1 step [999], 2 steps [999, 499], 4 steps [999, 759, 499, 259].
    "lcm": lambda config: LCMScheduler.from_config(config, original_inference_steps=50, clip_sample=False),
}
RENOISING = {"lcm"}  # samplers that draw noise after the first step
BETAS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)


def scheduler(name: str, config: Any) -> Any:
    """The sampler `name` on the noise schedule of a diffusers scheduler config; nothing else of it is used."""
    if name not in SAMPLERS:
        raise SlamError(f"sampler {name!r} is not one of {', '.join(SAMPLERS)}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*dpmsolver", FutureWarning)  # leaves diffusers with 1.0, it says
        return SAMPLERS[name]({key: config[key] for key in BETAS if key in config})


def sample(
    model: LatentDiffusion,
    context: Tensor,
    null_context: Tensor,
    noise: Tensor,
    *,
    sampler: str,
    steps: int,
    guidance: float = 1.0,
    generator: Sequence[torch.Generator] | torch.Generator | None = None,
) -> Tensor:
    """Latents [B, C, h, w] drawn from `noise` [B, C, h, w] for `context` [B, L, D].

    With guidance > 1 the network sees `null_context` [1, L, D] and `context` in one batch (Ho & Salimans 2022);
    one that is told w is told it instead.
    `generator` is read by re-noising samplers alone; with a list, picture i's noise comes from generator i alone.
    The sampler's arithmetic is in the precision of `noise`, the network in its own.
    """
    solver = scheduler(sampler, model.scheduler.config)
    solver.set_timesteps(steps, device=noise.device)
    told = None
    if model.told_w:
        told = guidance_features(torch.full((len(noise),), guidance, device=noise.device)).to(context.dtype)
    guided = guidance > 1 and told is None
    if guided:
        context = torch.cat([null_context.expand_as(context), context])
    drawing = {"generator": generator} if sampler in RENOISING else {}
    latents = noise * solver.init_noise_sigma
    for t in solver.timesteps:
        z = solver.scale_model_input(latents, t).to(context.dtype)
        eps = model.unet(torch.cat([z, z]) if guided else z, t, encoder_hidden_states=context, timestep_cond=told)
        eps = eps.sample.to(noise.dtype)
        if guided:
            unconditional, conditional = eps.chunk(2)
            eps = unconditional + guidance * (conditional - unconditional)
        latents = solver.step(eps, t, latents, **drawing, return_dict=False)[0]
    return latents
