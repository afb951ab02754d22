"""What `precision` in params.yaml means for the networks that a stage runs."""

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
