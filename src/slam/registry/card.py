"""The model card: README.md of a registered student, for people who have nothing but its folder."""

from __future__ import annotations

from collections.abc import Mapping

from slam.config import Profile
from slam.evaluation.report import markdown
from slam.registry.gate import Records

DESCRIPTION = 5000  # characters, of MLflow's database
USE = """\
```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("FOLDER", use_safetensors=True)
pipeline("a large red circle on a blue background", num_inference_steps=4, guidance_scale=GUIDANCE).images[0]
```"""


def card(name: str, profile: Profile, records: Records, cost: Mapping[str, float], facts: Mapping[str, str]) -> str:
    """Markdown with Hugging Face's head. `facts`: what a reader can look up, such as the run and the hashes of data."""
    distill, train = profile.distill, profile.train
    told = distill.method == "lcm_w"
    guidance = f"{distill.w:g}" if told else "1"
    lora = f", LoRA of rank {train.lora.rank}" if train.lora else ""
    made = {
        "teacher": profile.teacher,
        "method": f"{distill.method}, conditioning {distill.conditioning}, {distill.distance}, "
        f"k = {distill.k}, k_phi = {distill.k_phi}, guidance w = {distill.w:g}, mu = {distill.mu:g}",
        "training": f"{train.steps} steps of {train.batch}, learning rate {train.lr:g}, {train.precision}, "
        f"seed {train.seed}{lora}",
        **{key.removeprefix("cost/").replace("_", " "): f"{value:,.6g}" for key, value in cost.items()},
        **facts,
    }
    rows = "".join(f"| {key} | {value} |\n" for key, value in made.items())
    return f"""\
---
library_name: diffusers
pipeline_tag: text-to-image
base_model: {profile.teacher}
tags: [text-to-image, distillation, few-step, slam]
---

# {name}

Draws in 1 to 4 steps what its teacher, `{profile.teacher}`, needs 50 guided steps for. Distilled by SLAM (Xu et al.,
"Accelerating Image Generation with Sub-path Linear Approximation Model", ECCV 2024).

## Use

{USE.replace("GUIDANCE", guidance)}

{"It is told its guidance scale." if told else "Guidance is learnt: leave `guidance_scale` at 1."}

## What was measured

{markdown(records)}
## How it was made

| | |
|---|---|
{rows}
## Limits

It draws what its teacher and its captions know, with their faults and their bias, and has no safety checker. The
numbers above hold for this protocol alone.
"""


def description(text: str) -> str:
    """A card as the description of a version: without the head, and cut at the end of a line if it must be."""
    body = text.split("---\n", 2)[-1].strip() + "\n"
    if len(body) <= DESCRIPTION:
        return body
    more = "\nThe rest is in README.md, in the version's run and in its folder.\n"
    return body[: body.rindex("\n", 0, DESCRIPTION - len(more)) + 1] + more
