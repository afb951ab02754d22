"""A student becomes a version of the MLflow model `slam`."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from slam import paths
from slam.config import Profile
from slam.files import read_json, sha256
from slam.models import drawing
from slam.registry.card import card, description
from slam.registry.facts import cost, machine, packages
from slam.registry.mirror import drain
from slam.registry.record import fingerprint, locked
from slam.registry.stages import hashes, log_stages, read_lock
from slam.registry.track import NAME, connect, git_revision, log_inputs_and_results
from slam.registry.weights import CARD, files_sha256

TRAINED_BY = "slam.training_run"  # tag of a version's run: the run of its training, which slam/registry/mirror.py feeds
DATA = {f"dvc.{path}" for path in (paths.FILTERED, paths.LATENTS, paths.EVALUATION)}  # what the card names
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
        name = f"{profile_name} {mark[:8]}"
        with mlflow.start_run(run_name=name) as run:
            run_id = run.info.run_id
            trained, price = drain(root / paths.TRAIN, root), cost(root / paths.TRAIN)
            log_inputs_and_results(client, run_id, {"profile": profile_name, **profile.model_dump()}, price, root)
            client.log_text(run_id, "\n".join(packages()), "environment.txt")
            log_stages(client, run_id, trained, root)
            data = {key: value for stage in read_lock(root).values() for key, value in hashes(stage).items()}
            for key, value in {**machine(root), **data, **({TRAINED_BY: trained} if trained else {})}.items():
                client.set_tag(run_id, key, value)
            text = _card(name, run_id, profile, price, data, root)
            client.log_text(run_id, text, CARD)
            uri = _log_model(root, text)
        tags = {"fingerprint": mark, "profile": profile_name, "files_sha256": files_sha256(root / paths.STUDENT)}
        tags |= {key: data[key] for key in [f"dvc.{paths.LATENTS}"] if key in data} | _evaluation(root)
        registered = str(mlflow.register_model(uri, NAME, tags=tags).version)
        client.update_model_version(NAME, registered, description=description(text))
        return registered


def _evaluation(root: Path) -> dict[str, str]:
    """Which record of an evaluation a version has, and by which protocol."""
    first = read_json(root / paths.METRICS, "slam evaluate")[0]
    protocol = f"{first['protocol']} ({first['protocol_hash'][:8]})"
    return {"protocol": protocol, "evaluation_sha256": sha256(root / paths.METRICS)}


def _card(name: str, run_id: str, profile: Profile, price: dict[str, float], data: dict[str, str], root: Path) -> str:
    records = read_json(root / paths.METRICS, "slam evaluate")
    revision = git_revision(root)
    changed = ", with changes" if revision.get("git.dirty") == "true" else ""
    facts = {
        "data (DVC)": ", ".join(f"`{key[4:]}` {value}" for key, value in data.items() if key in DATA) or "not in DVC",
        "code (git)": f"{revision['mlflow.source.git.commit']}{changed}" if revision else "not in git",
        "MLflow run": run_id,
        "evaluation": f"`{paths.METRICS.name}` of that run, sha256 {sha256(root / paths.METRICS)}",
    }
    return card(f"slam: {name}", profile, records, price, facts)


def _log_model(root: Path, text: str) -> str:
    """The student with its card becomes a logged model of the active run; returns its URI."""
    (root / ".slam").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root / ".slam") as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*input example")  # MLflow would draw it here; the gate draws anyway
        whole = shutil.copytree(root / paths.STUDENT, Path(folder) / "student")
        (whole / CARD).unlink(missing_ok=True)  # it may be write-protected by DVC
        (whole / CARD).write_text(text, encoding="utf-8")
        return mlflow.pyfunc.log_model(
            name="student",
            python_model=str(root / PYFUNC),
            code_paths=[str(DRAWING)],
            artifacts={"student": str(whole.absolute())},
            signature=SIGNATURE,
            pip_requirements=[f"{package}=={version(package)}" for package in NEEDS],
        ).model_uri
