"""Where each stage writes, relative to the folder that holds params.yaml. `dvc.yaml` names the same places."""

from pathlib import Path

RAW = Path("data/raw")  # source: img2dataset shards, index.json
EVALUATION = Path("data/evaluation")  # source: captions.json (COCO format), images/, index.json
SCORES = Path("data/scores")  # score: NNNNN.parquet of each shard, index.json
FILTERED = Path("data/filtered")  # filter: manifest, rejected, counts, histograms, docs/
LATENTS = Path("data/latents")  # encode: SPLIT-NNNNN.safetensors, index, manifest, rejected, counts, docs/, decoded.png
TRAIN = Path("runs/train")  # train: checkpoints/step-NNNNNN/, journal.jsonl
STUDENT = Path("models/student")  # select: a diffusers folder
SELECTION = Path("reports/selection.json")  # select: what each checkpoint measured
METRICS = Path("reports/metrics.json")  # evaluate: one record per model, sampler and step count
SAMPLES = Path("reports/samples.png")  # evaluate: the same prompts and noise for each
TABLE = Path("reports/table.md")  # evaluate: METRICS as a table
WORST = Path("reports/worst.png")  # evaluate: the prompts that the student draws worst, by CLIP score
TRADEOFF = Path("reports/tradeoff.png")  # evaluate: quality against steps and against time
REGISTRATION = Path("reports/registration.json")  # the flow: what was registered and promoted last, from this folder
GATE = Path("mlflow/promotion.yaml")  # what a version must be to become champion
DRAWN = ".evaluation"  # beside the metrics of an evaluation: finished rows, and parts of the one that is not
COMPILED = Path(".slam/compiled")  # by torch.compile, for the next run, unless TORCHINDUCTOR_CACHE_DIR says where
