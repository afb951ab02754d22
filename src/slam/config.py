"""What `params.yaml` may say. Frozen; an unknown or misspelt key is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from slam.config_data import Encode, Filter, Score, Source
from slam.config_speed import Speed
from slam.errors import SlamError
from slam.frozen import Frozen, Positive, validated
from slam.protocols import find


class Distill(Frozen):
    """Algorithm 1's letters, and the paper's switches."""

    method: Literal["slam", "dl", "lcm", "lcm_w"]
    # How the student learns gamma. gamma: the paper's embedding; gamma-continuous: lower frequencies, continuous at
    # gamma = 1; time-matched: none is needed. This, gamma_at_1 and sigma mean nothing to lcm and lcm_w.
    conditioning: Literal["time-matched", "gamma", "gamma-continuous"]
    gamma_at_1: float = Field(0.0, ge=0, lt=1)  # share of the samples whose gamma is 1; the others' is U[0, 1)
    sigma: Literal["linear", "exact"]  # of the main text, or Eq 24
    distance: Literal["huber", "huber-vector", "l2"]
    huber_c: float = Field(0.001, gt=0)
    weighting: Literal["uniform", "step", "noise"] = "uniform"  # of a sample's loss by its t
    k: Positive  # skipping step, time indices
    k_phi: Positive  # the solver's grid: t is one of its times
    multiple_estimation: bool = True  # from t to t - k in steps of k_phi; else in one of k
    w: float = Field(ge=1)  # guidance scale; of lcm_w, the one that `select` draws with
    w_min: float | None = Field(None, ge=1)  # lcm_w is trained on w ~ U[w_min, w_max]
    w_max: float | None = None
    mu: float = Field(0.95, ge=0, lt=1)  # EMA decay of the target

    @model_validator(mode="after")
    def _consistent(self):
        if self.k % self.k_phi:
            raise ValueError(f"distill.k = {self.k} must be a multiple of distill.k_phi = {self.k_phi}")
        if self.method == "dl" and self.sigma != "exact":
            raise ValueError("distill.method = dl needs distill.sigma = exact: Eq 28 is its only form")
        bounds = (self.w_min, self.w_max)
        if self.method != "lcm_w" and bounds != (None, None):
            raise ValueError(f"distill.w_min, distill.w_max are lcm_w's; {self.method} is trained at distill.w alone")
        if self.method == "lcm_w" and (
            None in bounds or not self.w_min <= self.w <= self.w_max or len(set(bounds)) < 2
        ):
            raise ValueError(
                "distill.method = lcm_w needs w_min <= w <= w_max, w_min < w_max: "
                f"found w_min = {self.w_min}, w = {self.w}, w_max = {self.w_max}"
            )
        return self


class Lora(Frozen):
    """A student of low-rank adapters on the teacher's frozen U-Net."""

    rank: Positive
    alpha: float = Field(gt=0)  # the adapters are scaled by alpha / rank
    # The layers of LCM-LoRA (Luo et al. 2023, arXiv:2311.05556)
    targets: tuple[str, ...] = (
        *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
        *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj"),
    )


class Train(Frozen):
    steps: Positive
    batch: Positive  # global batch: of all processes together
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(10.0, gt=0)  # L2 norm of the gradient
    skips: Positive = 10  # steps in a row whose gradient is not finite, after which training stops
    lora: Lora | None = None  # all weights by default
    warmup: int = Field(0, ge=0)  # steps, from 0 to lr
    decay: Literal["constant", "linear"] = "constant"  # of lr after the warm-up; linear: to 0 at `steps`
    checkpoint_every: Positive  # steps
    keep: Positive  # newest checkpoints, whose EMA is kept for `select`; two are, at least, should one be damaged
    keep_best: int = Field(0, ge=0)  # and as many of those before them, by held-out loss; 0: it is not computed
    log_every: Positive = 10  # steps
    pictures_every: Positive | None = None  # steps; what the target draws by then: runs/train/pictures/
    processes: Positive = 1
    grace: float = Field(30.0, gt=0, allow_inf_nan=False)  # seconds from SIGTERM to SIGKILL, for the last checkpoint
    micro_batch: Positive | None = None  # of one process, for gradient accumulation; all of its share by default
    checkpointing: bool = False  # of activations: computed again in the backward pass, for less memory
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 0
    speed: Speed = Speed()
    # EMA decays that are kept beside the target's, for `select`: each is one more candidate of every checkpoint
    emas: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()

    @model_validator(mode="after")
    def _divisible(self):
        share, rest = divmod(self.batch, self.processes)
        if rest:
            raise ValueError(f"train.batch = {self.batch} must be a multiple of train.processes = {self.processes}")
        if self.micro_batch and share % self.micro_batch:
            raise ValueError(f"train.micro_batch = {self.micro_batch} must divide batch / processes = {share}")
        if len(set(self.emas)) < len(self.emas):
            raise ValueError(f"train.emas = {list(self.emas)} names a decay twice")
        return self


class Select(Frozen):
    samples: Positive  # validation prompts
    steps: tuple[Positive, ...]  # sampler steps whose Frechet distances are weighed
    batch: Positive
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the networks that draw
    seed: int = 0


class Evaluate(Frozen):
    protocol: str  # its name: protocols.py has them, and what each fixes
    samples: Positive | None = None  # pictures a row, where the protocol fixes no number
    steps: tuple[Positive, ...] = (1, 2, 4)
    samplers: tuple[Literal["ddim", "dpm", "dpm++", "unipc"], ...] = ("ddim", "dpm++", "unipc")
    teacher_steps: Positive = 50
    guidance: float = Field(ge=1)  # of the teacher and of the training-free samplers
    features: str  # of FID, KID, precision and recall: a judge's folder, or the file of the Inception weights
    clip: str  # a CLIPModel's folder or hub id
    judge: str | None = None  # the attribute classifier's folder, for faithfulness; none without one
    batch: Positive  # pictures between two savings; the networks see them in blocks that the protocol fixes
    processes: Positive = 1  # of this machine, one a GPU
    rows: Positive = 8  # of the picture
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the networks that draw
    seed: int = 0

    @model_validator(mode="after")
    def _as_the_protocol_fixes_it(self):
        try:
            find(self.protocol).samples(self.samples)
        except SlamError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def n(self) -> int:
        """Pictures a row."""
        return find(self.protocol).samples(self.samples)


class Profile(Frozen):
    teacher: str  # a diffusers folder or hub id
    source: Source
    score: Score | None = None  # None: no row's score is computed
    filter: Filter
    encode: Encode
    distill: Distill
    train: Train
    select: Select
    evaluate: Evaluate

    @model_validator(mode="after")
    def _no_projection_beside_adapters(self):
        told = self.distill.method == "lcm_w" or (
            self.distill.method in ("slam", "dl") and self.distill.conditioning != "time-matched"
        )
        if self.train.lora and told:
            raise ValueError(
                "train.lora: adapters alone cannot hold the embedding of "
                f"distill.method = {self.distill.method}, conditioning = {self.distill.conditioning}; "
                "use time-matched, or lcm"
            )
        return self


def load(path: str | Path = "params.yaml", profile: str | None = None) -> Profile:
    """The profile named by `profile`, or by the file's own key `profile`.

    Raises `SlamError` naming each key that is unknown, missing or out of range.
    """
    path = Path(path)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SlamError(f"{path.absolute()} does not exist: run slam in the folder that holds params.yaml") from None
    except yaml.YAMLError as error:
        raise SlamError(f"{path}: expected YAML, found {error}") from None
    profiles = document.get("profiles") if isinstance(document, dict) else None
    if not isinstance(profiles, dict):
        raise SlamError(f"{path}: expected the keys `profile` and `profiles`, found neither")
    if (name := profile or document.get("profile")) not in profiles:
        raise SlamError(f"{path}: profile = {name!r} is not one of {', '.join(profiles)}")
    return parse(profiles[name], f"{path}: profiles.{name}")


def parse(values: Any, where: str, model: type[Frozen] = Profile) -> Any:
    """`values` as a `model`. Raises `SlamError` naming, after `where`, each key that is wrong."""
    return validated(values, where, model)
