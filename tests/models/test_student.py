import pytest
import torch
from diffusers import DiffusionPipeline, LCMScheduler, StableDiffusionPipeline

from slam.core.sample import sample
from slam.errors import SlamError
from slam.models.diffusion import load
from slam.models.export import export
from slam.models.predictor import NoisePredictor, check_prediction, schedule_of
from slam.models.student import GAMMA_KEY, gamma_features, make_student


@pytest.fixture(scope="module")
def model(random_teacher):
    return load(random_teacher)


@pytest.fixture(scope="module")
def inputs(model):
    g = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 8, 8, generator=g), torch.tensor([19, 499, 999]), model.embed(["a red circle"] * 3)


def predictor(model, unet):
    return NoisePredictor(unet, "epsilon", schedule_of(model.scheduler, model.name))


def trained(model):
    """A student whose every weight, the gamma projection's too, has moved away from the teacher's."""
    torch.manual_seed(1)
    student = make_student(model.unet, "gamma")
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return student.eval()


def test_gamma_features_are_0_at_1_and_continuous_there():
    assert torch.equal(gamma_features(torch.ones(4)), torch.zeros(4, 256))
    near = gamma_features(torch.tensor([1 - 1e-4]))
    assert 0 < near.abs().max() < 16 * 1e-4 * 1.01


@pytest.mark.parametrize("conditioning", ["gamma", "time-matched"])
def test_a_new_student_is_the_teacher_bit_for_bit_at_any_gamma(conditioning, model, inputs):
    z, t, c = inputs
    student = predictor(model, make_student(model.unet, conditioning).eval())
    expected = model.unet(z, t, c).sample
    assert torch.equal(student(z, t, c), expected)
    if conditioning == "gamma":
        assert torch.equal(student(z, t, c, gamma=torch.tensor([0.0, 0.5, 1.0])), expected)


def test_the_gamma_projection_drops_out_at_gamma_1_and_only_there(model, inputs):
    z, t, c = inputs
    student = predictor(model, trained(model))
    plain = student(z, t, c)
    assert torch.equal(student(z, t, c, gamma=torch.ones(3)), plain)
    assert not torch.allclose(student(z, t, c, gamma=torch.zeros(3)), plain, atol=1e-3)


def test_the_export_has_the_teachers_keys_and_the_students_outputs(model, inputs, tmp_path):
    z, t, c = inputs
    student = trained(model)
    export(model.name, student.state_dict(), tmp_path / "student")
    exported = load(tmp_path / "student")
    assert GAMMA_KEY in student.state_dict()
    assert exported.unet.state_dict().keys() == model.unet.state_dict().keys()
    assert torch.equal(exported.unet(z, t, c).sample, predictor(model, student)(z, t, c, gamma=None))


def test_plain_diffusers_loads_and_samples_the_export_as_our_sampler_does(model, tmp_path):
    student = trained(model)
    export(model.name, student.state_dict(), tmp_path / "student")
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


def test_export_refuses_weights_of_another_network(model, tmp_path):
    weights = dict(model.unet.state_dict())
    weights.pop("conv_in.bias")
    with pytest.raises(SlamError, match=r"conv_in\.bias"):
        export(model.name, weights, tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_v_prediction_becomes_eps(model, inputs):
    """v = alpha eps - sigma z_0 of a known eps and z_0 gives that eps back."""
    z0, t, c = inputs
    eps, schedule = torch.randn_like(z0), schedule_of(model.scheduler, model.name)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)

    class Oracle(torch.nn.Module):
        def forward(self, z, t, encoder_hidden_states, timestep_cond=None):
            return type("Output", (), {"sample": alpha * eps - sigma * z0})

    net = NoisePredictor(Oracle(), "v_prediction", schedule)
    assert torch.allclose(net(alpha * z0 + sigma * eps, t, c), eps, atol=1e-4)


def test_predictions_that_cannot_be_read_are_refused():
    with pytest.raises(SlamError, match="prediction_type = 'sample'"):
        check_prediction("sample", "teacher", "gamma")
    with pytest.raises(SlamError, match="time-matched"):
        check_prediction("v_prediction", "teacher", "gamma")
    check_prediction("v_prediction", "teacher", "time-matched")


def test_a_folder_without_a_part_is_refused_by_its_name(random_teacher, tmp_path):
    for part in ("unet", "text_encoder"):
        (tmp_path / part).symlink_to(random_teacher / part)
    with pytest.raises(SlamError, match="no vae, tokenizer, scheduler"):
        load(tmp_path)


def test_a_name_that_is_no_folder_and_no_hub_id_is_refused(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SlamError, match="no folder here, nor a reachable hub id"):
        load("teachers/no-such")
