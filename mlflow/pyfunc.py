"""The registered model, as code and safetensors (no pickle): plain diffusers, so that serving needs no `slam`.

{"dataframe_records": [{"prompt": "a large red circle"}], "params": {"steps": 4, "seed": 0, "images": 1}}
-> {"predictions": [{"prompt": "a large red circle", "png": "<base64>"}]}

What cannot be drawn is answered with status 400 and the reason.
"""

import base64
import io

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

try:
    import drawing  # the copy beside this file, in a registered model
except ModuleNotFoundError:  # while it is being registered
    from slam.models import drawing


class Student(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.painter = drawing.Painter(context.artifacts["student"])

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """Column `prompt` to columns `prompt` and `png` (base64), `images` rows for each prompt. 0 stands for None."""
        prompts, params = model_input["prompt"].tolist(), params or {}
        asked = {name: value for name, value in params.items() if value or name in ("steps", "seed", "images")}
        try:
            pictures = self.painter.draw(prompts, **asked)
        except drawing.WrongRequestError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        repeated = [prompt for prompt in prompts for _ in range(params.get("images", 1))]
        return pd.DataFrame({"prompt": repeated, "png": [encode(picture) for picture in pictures]})


def encode(picture) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


mlflow.models.set_model(Student())
