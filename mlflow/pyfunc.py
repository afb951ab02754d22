"""The registered model, as code and safetensors (no pickle): plain diffusers, so that serving needs no `slam`.

{"dataframe_records": [{"prompt": "a large red circle"}], "params": {"steps": 4, "seed": 0, "guidance": 1.0}}
-> {"predictions": [{"png": "<base64>"}]}
"""

import base64
import io

import mlflow
import numpy as np
import pandas as pd
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


class Student(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()
        self.pipeline = DiffusionPipeline.from_pretrained(context.artifacts["student"], safety_checker=None)
        self.pipeline.set_progress_bar_config(disable=True)
        self.pipeline.to("cuda" if torch.cuda.is_available() else "cpu")

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """Column `prompt` to column `png` (base64). Row i of a seed has the noise it has in `slam generate`."""
        params = {"steps": 4, "seed": 0, "guidance": 1.0, **(params or {})}
        prompts = model_input["prompt"].tolist()
        pictures = self.pipeline(
            prompts,
            num_inference_steps=params["steps"],
            guidance_scale=params["guidance"],  # 1 unless the student is told it: it has learnt its own
            generator=[stream(params["seed"], row) for row in range(len(prompts))],
        ).images
        return pd.DataFrame({"png": [encode(picture) for picture in pictures]})


def stream(seed: int, row: int) -> torch.Generator:
    """As slam.evaluation.generate.streams, which this file does not import."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, row)).generate_state(1)[0]))


def encode(picture) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


mlflow.models.set_model(Student())
