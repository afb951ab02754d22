"""What `params.yaml` may say of the data: where it comes from, what may stay, how it is stored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from slam.frozen import Frozen, Positive

REFERENCE = ("captions", "images")  # the evaluation set; without it everything but `evaluate` works
SOURCES = {  # kind -> the keys that it needs, the keys that it may have
    "shapes": (("pictures", "evaluation"), ("degraded", "shard", "seed")),
    **dict.fromkeys(("img2dataset", "metadata", "folder"), (("path",), REFERENCE)),
    "coco": (("path", "annotations"), REFERENCE),
}


class Source(Frozen):
    """Where captioned pictures come from. `shapes` draws them; the others only name what is already there."""

    kind: Literal["shapes", "img2dataset", "metadata", "folder", "coco"]
    path: str | None = None  # the folder of shards or of pictures; metadata: a Parquet file or a folder of them
    annotations: str | None = None  # coco: the captions of the pictures in `path` (captions_train2014.json)
    captions: str | None = None  # evaluation captions, COCO format (captions_val2014.json)
    images: str | None = None  # the folder of evaluation images that the captions speak of
    pictures: Positive | None = None  # shapes: training pictures
    evaluation: Positive | None = None  # shapes: evaluation pictures, drawn from another seed
    degraded: float = Field(0.0, ge=0, lt=1)  # shapes: share that is blurred, faded or noisy
    shard: Positive = 1000  # shapes: pictures a shard
    seed: int = 0

    @model_validator(mode="after")
    def _complete(self):
        needs, may = SOURCES[self.kind]
        given = {key for key in self.model_fields_set if getattr(self, key) is not None}
        pair = [key for key in REFERENCE if given & set(REFERENCE)]  # both or neither
        if missing := [key for key in (*needs, *pair) if key not in given]:
            raise ValueError(f"kind {self.kind!r} needs {', '.join(missing)}")
        if strange := sorted(given - {"kind", *needs, *may}):
            raise ValueError(f"kind {self.kind!r} has no {', '.join(strange)}")
        return self


class Limit(Frozen):
    """What values of one column may stay. Both ends belong to it."""

    min: float | None = None
    max: float | None = None
    missing: Literal["keep", "drop", "stop"]  # what becomes of a row without a value; stop: of the whole stage

    @model_validator(mode="after")
    def _says_something(self):
        if self.min is None and self.max is None:
            raise ValueError("a limit needs min or max; leave it out to switch it off")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min = {self.min} is more than max = {self.max}: nothing would stay")
        return self


class Limits(Frozen):
    """One that is left out is off."""

    aesthetic: Limit | None = None  # LAION's score, 1-10
    short_side: Limit | None = None  # pixels, the least of the sizes found and stored
    aspect: Limit | None = None  # long side / short side
    watermark: Limit | None = None  # probability
    nsfw: Limit | None = None  # probability
    similarity: Limit | None = None  # cosine of the picture's and the caption's CLIP embeddings
    caption: Limit | None = None  # characters


class Filter(Frozen):
    limits: Limits = Limits()
    duplicates: bool = True  # of pictures with one sha256 (one URL, where there is none) the first stays
    # Largest Hamming distance of 64-bit perceptual hashes at which two pictures count as one; off by default
    near_duplicates: int | None = Field(None, ge=0, le=10)
    removal: tuple[str, ...] = ()  # files of URLs or sha256 that must go: text, one a line, or Parquet
    decontaminate: str | None = None  # a folder of evaluation pictures that must not be trained on
    expectations: str | None = None  # a YAML file of further ones: of rows, manifest, latents
    survivors: float = Field(ge=0, le=1)  # stop when a smaller share survives
    validation: Positive  # pictures kept from training, for `select`


class Encode(Frozen):
    resolution: Positive  # pixels; short side resized to it, then centre crop
    batch: Positive
    shard: Positive = 8192  # latents a shard
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the VAE; latents are stored in fp16
    # What is stored of the VAE's posterior. mean; sample: one, drawn from (seed, key); moments: mean and standard
    # deviation, from which training draws anew in each step
    posterior: Literal["mean", "sample", "moments"] = "mean"
    processes: Positive = 1  # of this machine, one a GPU
    broken: float = Field(0.01, ge=0, le=1)  # stop when a larger share of the pictures cannot be decoded
    seed: int = 0  # of posterior: sample


class Score(Frozen):
    """The LAION aesthetics predictor, for pictures whose metadata has no score."""

    clip: str  # a CLIPModel's folder or hub id; the public head goes with openai/clip-vit-large-patch14
    head: str  # what `slam score --convert` wrote
    batch: Positive = 64
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of CLIP; embeddings and scores are float32
