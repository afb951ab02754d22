from dataclasses import replace

import pytest
import torch
from diffusers import DiffusionPipeline, LatentConsistencyModelPipeline, LCMScheduler, StableDiffusionPipeline

from slam.config import Lora
from slam.core.paths import direct_linking, sub_path_exact, sub_path_linear
from slam.core.sample import sample
from slam.errors import SlamError
from slam.evaluation.samplers import sample as sampled
from slam.models.diffusion import LAYOUT, load
from slam.models.embedding import EMBEDDINGS, PROJECTION, continuous_gamma_features, gamma_features, sinusoids
from slam.models.export import export
from slam.models.predictor import NoisePredictor, check_prediction, marginal_of, schedule_of
from slam.models.student import load_weights, make_student
from slam.models.student import trained as trained_weights


@pytest.fixture(scope="module")
def model(random_teacher):
    return load(random_teacher)


@pytest.fixture(scope="module")
def inputs(model):
    g = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 8, 8, generator=g), torch.tensor([19, 499, 999]), model.embed(["a red circle"] * 3)


def predictor(model, unet, embedding="none"):
    return NoisePredictor(unet, "epsilon", schedule_of(model.scheduler, model.name), embedding)


def trained(model, embedding="none", lora=None):
    """A student whose every trained weight, a projection's too, has moved away from the teacher's."""
    torch.manual_seed(1)
    student = make_student(model.unet, embedding, lora)
    with torch.no_grad():
        for parameter in trained_weights(student).values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return student.eval()


def at_gamma_1(model, student):
    """`student` as `select` has it: without the projection of gamma."""
    plain = make_student(model.unet).eval()
    weights = {name: value for name, value in student.state_dict().items() if name != PROJECTION}
    load_weights(plain, weights, trained_weights(plain))
    return replace(model, unet=plain)


def test_both_gamma_features_are_0_at_1_and_one_is_continuous_there():
    one, near = torch.ones(4), torch.tensor([1 - 1e-4])
    for features in (gamma_features, continuous_gamma_features):
        assert torch.equal(features(one), torch.zeros(4, 256))
    assert 0 < continuous_gamma_features(near).abs().max() < 16 * 1e-4 * 1.01
    assert gamma_features(near).abs().max() > 0.9


def test_w_is_embedded_as_diffusers_lcm_pipeline_embeds_it():
    w = torch.tensor([1.0, 3.0, 7.5])
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, w - 1, embedding_dim=256)
    assert torch.allclose(sinusoids(w - 1), theirs, atol=1e-4)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_a_new_student_is_the_teacher_bit_for_bit_at_any_gamma_and_w(embedding, model, inputs):
    z, t, c = inputs
    student = predictor(model, make_student(model.unet, embedding).eval(), embedding)
    expected = model.unet(z, t, c).sample
    for gamma in (None, torch.tensor([0.0, 0.5, 1.0])):
        assert torch.equal(student(z, t, c, gamma=gamma, w=torch.tensor([1.0, 3.0, 8.0])), expected)


@pytest.mark.parametrize("embedding", ["gamma", "gamma-continuous"])
def test_the_gamma_projection_drops_out_at_gamma_1_and_only_there(embedding, model, inputs):
    z, t, c = inputs
    student = predictor(model, trained(model, embedding), embedding)
    plain = student(z, t, c)
    assert torch.equal(student(z, t, c, gamma=torch.ones(3)), plain)
    assert not torch.allclose(student(z, t, c, gamma=torch.zeros(3)), plain, atol=1e-3)


def test_the_export_has_the_teachers_keys_and_the_students_outputs(model, inputs, tmp_path):
    z, t, c = inputs
    student = trained(model, "gamma")
    export(at_gamma_1(model, student), tmp_path / "student")
    exported = load(tmp_path / "student")
    assert PROJECTION in student.state_dict()
    assert exported.unet.state_dict().keys() == model.unet.state_dict().keys()
    assert torch.equal(exported.unet(z, t, c).sample, predictor(model, student, "gamma")(z, t, c, gamma=None))


def test_plain_diffusers_loads_and_samples_the_export_as_our_sampler_does(model, tmp_path):
    student = trained(model)
    export(replace(model, unet=student), tmp_path / "student")
    prompts, noise = ["a red circle", "a small blue star"], torch.randn(2, 4, 8, 8)
    for loader in (DiffusionPipeline, StableDiffusionPipeline):
        pipeline = loader.from_pretrained(tmp_path / "student")
        pipeline.set_progress_bar_config(disable=True)
        assert isinstance(pipeline.scheduler, LCMScheduler)
        theirs = pipeline(
            prompts,
            num_inference_steps=4,
            guidance_scale=1,
            latents=noise,
            generator=torch.Generator().manual_seed(3),
            output_type="latent",
        ).images
        schedule = schedule_of(model.scheduler, model.name)
        ours = sample(
            predictor(model, student), noise, model.embed(prompts), 4, schedule, torch.Generator().manual_seed(3)
        )
        assert torch.allclose(ours, theirs, atol=2e-3)


def test_a_student_told_w_is_sampled_by_diffusers_at_the_scale_that_its_user_asks_for(model, tmp_path):
    student = trained(model, "w")
    export(replace(model, unet=student), tmp_path / "student")
    exported, noise, pictures = load(tmp_path / "student"), torch.randn(2, 4, 8, 8), []
    prompts = ["a red circle", "a small blue star"]
    for guidance in (3.0, 8.0):
        for loader in (StableDiffusionPipeline, LatentConsistencyModelPipeline):
            pipeline = loader.from_pretrained(tmp_path / "student", safety_checker=None)
            pipeline.set_progress_bar_config(disable=True)
            pipeline.unet.to(memory_format=LAYOUT)
            theirs = pipeline(
                prompts,
                num_inference_steps=1,
                guidance_scale=guidance,
                latents=noise,
                output_type="latent",
            ).images
            with torch.inference_mode():
                ours = sampled(
                    exported,
                    exported.embed(prompts),
                    exported.embed([""]),
                    noise,
                    sampler="lcm",
                    steps=1,
                    guidance=guidance,
                )
            assert torch.allclose(ours, theirs, atol=1e-3)
        pictures.append(ours)
    assert not torch.allclose(*pictures, atol=1e-2)


LORA = Lora(rank=4, alpha=8.0)


def test_adapters_are_zero_at_first_and_the_same_on_every_rank(model, inputs):
    z, t, c = inputs
    one, other = (make_student(model.unet, lora=LORA, seed=3).eval() for _ in range(2))
    assert torch.equal(one(z, t, c).sample, model.unet(z, t, c).sample)
    assert len(trained_weights(one)) > 0 and all("lora" in name for name in trained_weights(one))
    for name, value in trained_weights(one).items():
        assert torch.equal(value, trained_weights(other)[name])


def test_adapters_load_into_the_unmodified_teacher_pipeline_and_are_merged_in_the_export(model, inputs, tmp_path):
    z, t, c = inputs
    student = trained(model, lora=LORA)
    export(replace(model, unet=student), tmp_path / "student")
    expected = student(z, t, c).sample
    assert not torch.allclose(expected, model.unet(z, t, c).sample, atol=1e-2)
    pipeline = StableDiffusionPipeline.from_pretrained(model.name, safety_checker=None)
    pipeline.load_lora_weights(tmp_path / "student" / "lora")
    exported = load(tmp_path / "student").unet
    assert exported.state_dict().keys() == model.unet.state_dict().keys()
    with torch.no_grad():
        assert torch.allclose(pipeline.unet(z, t, c).sample, expected, atol=1e-4)
        assert torch.allclose(exported(z, t, c).sample, expected, atol=1e-4)


def test_adapters_for_layers_that_are_not_there_are_refused(model):
    with pytest.raises(SlamError, match=r"train\.lora\.targets"):
        make_student(model.unet, lora=Lora(rank=4, alpha=4, targets=("no_such_layer",)))


def test_a_teacher_that_is_itself_told_w_is_refused(model):
    with pytest.raises(SlamError, match="time_cond_proj_dim"):
        make_student(make_student(model.unet, "w"))


def test_weights_of_another_network_are_refused(model):
    weights = dict(model.unet.state_dict())
    weights.pop("conv_in.bias")
    student = make_student(model.unet)
    with pytest.raises(SlamError, match=r"conv_in\.bias"):
        load_weights(student, weights, trained_weights(student))


PATHS = {"linear": sub_path_linear, "exact": sub_path_exact, "direct linking": direct_linking}


@pytest.mark.parametrize("gamma", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("path", PATHS)
def test_v_of_the_point_at_unit_variance_becomes_its_eps(path, gamma, model, inputs):
    """A network that knows z_0 and eps answers v = (alpha eps - sigma z_0) / n at the point alpha z_0 + sigma eps."""
    z0, t, c = inputs
    eps, schedule = torch.randn_like(z0), schedule_of(model.scheduler, model.name)
    gamma = None if gamma is None else torch.full((3,), gamma)
    _, alpha, sigma = PATHS[path](z0, z0, (t - 100).clamp(min=0), t, gamma, schedule)
    v = (alpha * eps - sigma * z0) / (alpha**2 + sigma**2).sqrt()

    class Oracle(torch.nn.Module):
        def forward(self, z, t, encoder_hidden_states, timestep_cond=None):
            return type("Output", (), {"sample": v})

    net = NoisePredictor(Oracle(), "v_prediction", schedule, marginal=marginal_of(PATHS[path], 100, schedule))
    assert torch.allclose(net(alpha * z0 + sigma * eps, t, c, gamma), eps, atol=1e-4)


def test_predictions_that_cannot_be_read_are_refused():
    with pytest.raises(SlamError, match="prediction_type = 'sample'"):
        check_prediction("sample", "teacher")
    check_prediction("v_prediction", "teacher")


def test_a_folder_without_a_part_is_refused_by_its_name(random_teacher, tmp_path):
    for part in ("unet", "text_encoder"):
        (tmp_path / part).symlink_to(random_teacher / part)
    with pytest.raises(SlamError, match="no vae, tokenizer, scheduler"):
        load(tmp_path)


def test_a_name_that_is_no_folder_and_no_hub_id_is_refused(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SlamError, match="no folder here, nor a reachable hub id"):
        load("teachers/no-such")
