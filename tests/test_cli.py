"""The command line as a user meets it: exit codes and messages, never a traceback for a mistake."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from slam import cli
from slam.config import Source, parse
from slam.data.sources import SOURCES
from slam.models.diffusion import load
from slam.models.export import export
from slam.models.student import make_student

STAGES = ["source", "filter", "encode", "train", "select", "evaluate"]


def slam(*arguments, cwd):
    return subprocess.run([sys.executable, "-m", "slam.cli", *arguments], cwd=cwd, capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path):
    shutil.copy("params.yaml", tmp_path)
    (tmp_path / "teachers").symlink_to(Path("teachers").absolute())
    return tmp_path


def test_help_names_every_stage_in_order():
    text = CliRunner().invoke(cli.app, ["--help"]).output
    places = [text.index(f" {stage} ") for stage in STAGES]
    assert places == sorted(places)


def test_help_of_source_shows_each_kind_with_a_line_that_is_valid_as_pasted(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(cli.app, ["source", "--help"]).output
    lines = [line for line in text.splitlines() if line.strip().startswith("source: {")]
    kinds = [parse(yaml.safe_load(line)["source"], "pasted", Source).kind for line in lines]
    assert kinds == list(get_args(Source.model_fields["kind"].annotation)) == list(SOURCES)


def test_without_params_the_message_says_where_to_run(tmp_path):
    done = slam("source", cwd=tmp_path)
    assert done.returncode == 1
    assert "run slam in the folder that holds params.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_key_is_named_and_nothing_is_written(checkout):
    params = checkout / "params.yaml"
    params.write_text(params.read_text().replace("k_phi: 20", "k_fi: 20", 1))
    done = slam("source", cwd=checkout)
    assert done.returncode == 1
    assert "profiles.tiny.distill.k_fi is not a key: did you mean k_phi?" in done.stderr
    assert not (checkout / "data").exists()


@pytest.mark.parametrize(
    ("stage", "before"), [("filter", "slam source"), ("encode", "slam filter"), ("train", "slam encode")]
)
def test_a_stage_without_its_input_names_the_stage_before(stage, before, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    with pytest.raises(cli.SlamError, match=f"run `{before}` first"):
        CliRunner().invoke(cli.app, [stage], catch_exceptions=False)


def test_generate_without_a_champion_says_what_to_do(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(cli.SlamError, match="there is no champion.*make demo.*--model DIR"):
        CliRunner().invoke(cli.app, ["generate", "a red circle"], catch_exceptions=False)
    assert not (checkout / "mlflow.db").exists()


def test_generate_with_the_server_down_does_not_say_that_there_is_no_champion(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(cli.SlamError, match="^MLFLOW_TRACKING_URI = http://127.0.0.1:9 does not answer"):
        CliRunner().invoke(cli.app, ["generate", "a red circle"], catch_exceptions=False)


def test_generate_draws_a_png_and_the_same_one_again(random_teacher, tmp_path):
    export(load(random_teacher), tmp_path / "student")
    for name in ("a.png", "b.png"):
        arguments = ["generate", "a red circle", "--model", str(tmp_path / "student"), "--out", str(tmp_path / name)]
        CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    a, b = (tmp_path / name for name in ("a.png", "b.png"))
    assert Image.open(a).size == (32, 32)
    assert a.read_bytes() == b.read_bytes()


def test_generate_needs_the_guidance_scale_of_a_student_that_is_told_it(random_teacher, tmp_path):
    teacher = load(random_teacher)
    export(replace(teacher, unet=make_student(teacher.unet, "w")), tmp_path / "student")
    arguments = ["generate", "a red circle", "--model", str(tmp_path / "student"), "--out", str(tmp_path / "a.png")]
    with pytest.raises(cli.SlamError, match="guidance: this student is told its guidance scale"):
        CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    CliRunner().invoke(cli.app, [*arguments, "--guidance", "5"], catch_exceptions=False)
    assert Image.open(tmp_path / "a.png").size == (32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a red circle", "--model", "no/such"], "--model no/such is not a folder"),
        (["a red circle", "--model", "teachers", "--out", "a.jpg"], "expected a name that ends in .png"),
        (["a red circle", "--model", "teachers"], "teachers is not a whole diffusers folder"),
    ],
)
def test_generate_refuses_what_it_cannot_draw(arguments, message, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    with pytest.raises(cli.SlamError, match=message):
        CliRunner().invoke(cli.app, ["generate", *arguments], catch_exceptions=False)
