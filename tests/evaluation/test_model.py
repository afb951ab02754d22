"""`slam evaluate --model ANY`."""

import json
import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from slam import cli
from slam.config import Lora
from slam.errors import SlamError
from slam.evaluation.evaluate import evaluate_model
from slam.evaluation.subject import Subject
from slam.models.diffusion import load
from slam.models.export import export
from slam.models.student import make_student, trained


@pytest.fixture
def evaluate(config, evaluation_set, tmp_path):
    def measure(model, **kwargs):
        return evaluate_model(config, model, evaluation_set, tmp_path / "out", **kwargs)

    return measure


@pytest.fixture(scope="session")
def lora_student(random_teacher, tmp_path_factory):
    """An exported student of adapters: the merged network, and `lora/` alone."""
    folder = tmp_path_factory.mktemp("lora") / "student"
    model = load(random_teacher)
    student = make_student(model.unet, lora=Lora(rank=4, alpha=8))
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in trained(student).values():
            weight.add_(0.05 * torch.randn_like(weight))
    export(type(model)(**{**vars(model), "unet": student.eval().requires_grad_(False)}), folder)
    return folder


def test_a_few_step_model_is_measured_as_a_student(evaluate, random_student, config, tmp_path):
    records = evaluate(random_student)
    assert [(r["model"], r["sampler"], r["steps"], r["guidance"]) for r in records] == [
        ("student", "lcm", 1, 1.0),
        ("student", "lcm", 2, 1.0),
    ]
    assert {record["name"] for record in records} == {str(random_student)}
    out = tmp_path / "out"
    assert json.loads((out / "metrics.json").read_text()) == records
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        *("metrics.json", "table.md", "samples.png", "worst.png", "tradeoff.png")
    }
    inputs = records[0]["inputs"]
    hashes = {key for key, value in inputs.items() if key.endswith("_sha256") and len(value) == 64}
    assert hashes == {f"{name}_sha256" for name in ("captions", "reference", "features", "clip", "judge")}


@pytest.mark.slow
def test_a_many_step_model_is_measured_as_the_teacher_is(evaluate, random_teacher):
    records = evaluate(random_teacher)
    assert [(r["model"], r["sampler"], r["steps"]) for r in records] == [
        ("teacher", "ddim", 4),
        ("teacher", "ddim", 1),
        ("teacher", "ddim", 2),
        ("teacher", "unipc", 1),
        ("teacher", "unipc", 2),
    ]


def test_adapters_on_their_teacher_draw_what_the_merged_student_draws(lora_student, random_teacher):
    subject = Subject(str(lora_student / "lora"), str(random_teacher))
    adapted, merged = subject.load("fp32", "cpu").unet.state_dict(), load(lora_student).unet.state_dict()
    assert adapted.keys() == merged.keys()
    for name in merged:
        torch.testing.assert_close(adapted[name], merged[name], rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(merged[name], w) for name, w in load(random_teacher).unet.state_dict().items())


@pytest.mark.slow
def test_adapters_are_measured_as_a_student_and_need_their_base(evaluate, lora_student, random_teacher, tmp_path):
    with pytest.raises(SlamError, match="holds LoRA adapters: the model that they were made for must be named"):
        evaluate(lora_student / "lora")
    assert not (tmp_path / "out").exists()
    assert {r["sampler"] for r in evaluate(lora_student / "lora", base=str(random_teacher))} == {"lcm"}


def test_adapters_of_another_network_are_refused(evaluate, random_teacher, lora_student, tmp_path):
    shutil.copytree(random_teacher, tmp_path / "wider", ignore=shutil.ignore_patterns("unet"))
    wider = {**load(random_teacher, ("unet",)).unet.config, "block_out_channels": [32, 64]}
    UNet2DConditionModel.from_config(wider).save_pretrained(tmp_path / "wider" / "unet")
    with pytest.raises(SlamError, match="expected LoRA adapters for .*wider, found"):
        evaluate(lora_student / "lora", base=str(tmp_path / "wider"))
    assert not (tmp_path / "out").exists()


def nothing(folder, student):
    folder.mkdir()


def without_unet(folder, student):
    shutil.copytree(student, folder, ignore=shutil.ignore_patterns("unet"))


def without_a_weight(folder, student):
    shutil.copytree(student, folder)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_in.weight"]
    save_file(weights, file)


def of_sdxls_form(folder, student):
    without_unet(folder, student)
    told = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    own = {**load(student, ("unet",)).unet.config, **told, "projection_class_embeddings_input_dim": 80}
    UNet2DConditionModel.from_config(own).save_pretrained(folder / "unet")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder, student: None, "model does not exist: expected a diffusers folder, a hub id"),
        (nothing, r"model is no model: expected a diffusers folder \(model_index.json\) or LoRA adapters"),
        (without_unet, "not a whole diffusers folder: .* found no unet"),
        (without_a_weight, "unet: the weights lack conv_in.weight and 0 more"),
        (of_sdxls_form, "expected a model of Stable Diffusion 1's or 2's form"),
    ],
)
def test_what_is_no_model_is_said_and_nothing_is_written(make, said, evaluate, random_student, tmp_path):
    make(tmp_path / "model", random_student)
    with pytest.raises(SlamError, match=said):
        evaluate(tmp_path / "model")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_released_model_stands_beside_the_champion(evaluate, random_student, lora_student, tmp_path):
    records = evaluate(lora_student, champion=random_student, name="models:/released/1")
    assert [(r["model"], r["steps"]) for r in records] == [(m, n) for m in ("student", "champion") for n in (1, 2)]
    assert {r["name"] for r in records if r["model"] == "student"} == {"models:/released/1"}
    assert len({r["protocol_hash"] for r in records}) == 1
    text = (tmp_path / "out" / "table.md").read_text()
    assert f"student: models:/released/1; champion: {random_student}." in text


def test_out_without_a_model_is_refused():
    result = CliRunner().invoke(cli.app, ["evaluate", "--out", "x"])
    assert isinstance(result.exception, SlamError)
    assert "--out is of --model alone" in str(result.exception)
