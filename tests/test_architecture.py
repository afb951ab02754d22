"""Doors and layers: who may import what. Read from the source, so that a lazy import counts too."""

import ast
import sys
from pathlib import Path

import mlflow

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src" / "slam"
FILES = sorted(path for path in SOURCE.rglob("*.py"))

# Each may import what stands before it, and itself.
LAYERS = [
    "base",
    "core",
    "models",
    "data",
    "training",
    "bench",
    "evaluation",
    "teacher",
    "registry",
    "cli_models",
    "cli",
]
# launch starts children; shapes is the tiny world's vocabulary, numpy alone, which its judge has to know.
BASE = (
    "__init__",
    "errors",
    "files",
    "frozen",
    "config",
    "config_data",
    "config_speed",
    "paths",
    "progress",
    "stopping",
    "launch",
    "ahead",
    "protocols",
)
BASE += ("data.shapes",)

# Heavy packages, and the only places that know them.
DOORS = {
    "mlflow": ["registry"],
    "prefect": [],  # flows/ alone
    "dvc": [],
    "great_expectations": ["data/validation/expectations.py"],
    "duckdb": ["data/filter/repeats.py"],
    "dask": ["data/filter/engines.py"],
    "distributed": ["data/filter/engines.py"],
    "imagehash": ["data/pictures.py"],
    "cleanfid": ["evaluation"],
    "accelerate": ["training", "bench", "launch.py", "data/encode/stage.py"],
    "diffusers": ["models", "teacher", "evaluation/samplers.py"],
    "peft": ["models"],
    "transformers": ["models", "teacher", "evaluation/clip_score.py"],
}
CORE_MAY = {"torch", "slam", *sys.stdlib_module_names}


def imports(path: Path) -> set[str]:
    """Full dotted names: `from slam.core import slad` gives slam.core.slad."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def layer(dotted: str) -> int:
    """The layer of a module, or of a name in a module, below `slam.`."""
    if any(dotted == base or dotted.startswith(f"{base}.") for base in BASE):
        return 0
    return LAYERS.index(dotted.split(".")[0])


def test_each_layer_imports_only_what_is_below_it():
    wrong = [
        f"{module} imports {name}"
        for path in FILES
        for module in [".".join(path.relative_to(SOURCE).with_suffix("").parts)]
        for name in imports(path)
        if name.startswith("slam.") and layer(name.removeprefix("slam.")) > layer(module)
    ]
    assert not wrong


def test_heavy_packages_come_in_through_their_doors_alone():
    wrong = [
        f"{path.relative_to(SOURCE)} imports {package}"
        for path in FILES
        for package in {name.split(".")[0] for name in imports(path)} & DOORS.keys()
        if not any(path.is_relative_to(SOURCE / door) for door in DOORS[package])
    ]
    assert not wrong


def test_the_core_knows_torch_and_nothing_else():
    wrong = {
        name for path in (SOURCE / "core").glob("*.py") for name in imports(path) if name.split(".")[0] not in CORE_MAY
    }
    assert not wrong


def test_files_stay_short():
    long = {str(path.relative_to(SOURCE)): n for path in FILES if (n := len(path.read_text().splitlines())) > 250}
    assert not long


def test_the_folder_mlflow_does_not_hide_the_package(monkeypatch):
    assert not (REPOSITORY / "mlflow" / "__init__.py").exists()
    assert not (REPOSITORY / "mlflow.py").exists()
    assert hasattr(mlflow, "start_run")  # an empty namespace package would import too
    assert not Path(mlflow.__file__).is_relative_to(REPOSITORY / "mlflow")
