"""A student becomes a version of the MLflow model `slam`."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from slam import paths
from slam.config import Profile
from slam.models import drawing
from slam.registry.mirror import drain
from slam.registry.record import fingerprint, locked
from slam.registry.track import NAME, connect, log_inputs_and_results
from slam.registry.weights import files_sha256

TRAINED_BY = "slam.training_run"  # tag of a version's run: the run of its training, which slam/registry/mirror.py feeds
PYFUNC = Path("mlflow/pyfunc.py")
DRAWING = Path(drawing.__file__)  # a copy goes with the model
# 0 stands for "as the model was trained"
PARAMS = (("steps", "integer", 4), ("seed", "long", 0), ("images", "integer", 1), ("height", "integer", 0))
PARAMS += (("width", "integer", 0), ("guidance", "double", 0.0))
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("string", "prompt")]),
    outputs=Schema([ColSpec("string", "prompt"), ColSpec("string", "png")]),
    params=ParamSchema([ParamSpec(*param) for param in PARAMS]),
)
NEEDS = ("mlflow", "torch", "diffusers", "transformers", "accelerate", "safetensors", "pandas", "numpy", "pillow")


def register_stage(profile_name: str, profile: Profile, root: Path = Path()) -> str:
    """Registers `models/student` with `reports/` and returns its version, "1", "2", …

    The same student, measured the same, is the same version however often it is registered. Raises `SlamError` when
    there is no student or no evaluation.
    """
    mark = fingerprint(root)
    with locked(root):
        client = connect(root)
        known = client.search_model_versions(f"name = '{NAME}' and tags.fingerprint = '{mark}'")
        if known:
            return str(known[0].version)
        with mlflow.start_run(run_name=f"{profile_name} {mark[:8]}") as run, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s).*input example")  # MLflow would draw it here; the gate draws anyway
            if trained := drain(root / paths.TRAIN, root):
                client.set_tag(run.info.run_id, TRAINED_BY, trained)
            log_inputs_and_results(client, run, profile_name, profile.model_dump(), root)
            model = mlflow.pyfunc.log_model(
                name="student",
                python_model=str(root / PYFUNC),
                code_paths=[str(DRAWING)],
                artifacts={"student": str((root / paths.STUDENT).absolute())},
                signature=SIGNATURE,
                pip_requirements=[f"{package}=={version(package)}" for package in NEEDS],
            )
        tags = {"fingerprint": mark, "profile": profile_name, "files_sha256": files_sha256(root / paths.STUDENT)}
        return str(mlflow.register_model(model.model_uri, NAME, tags=tags).version)
