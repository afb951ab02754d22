import pytest
import torch
from diffusers import StableDiffusionPipeline

from slam.errors import SlamError
from slam.evaluation.generate import draw, noise, streams
from slam.evaluation.samplers import SAMPLERS, sample, scheduler
from slam.models.diffusion import LAYOUT, load

CAPTIONS = ["a red circle", "a large blue star on a white background", "a green ring at the left"]


@pytest.fixture(scope="module")
def model(random_teacher):
    return load(random_teacher)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_equals_the_unmodified_diffusers_pipeline(random_teacher, model, sampler, steps, guidance):
    pipeline = StableDiffusionPipeline.from_pretrained(random_teacher, safety_checker=None)
    pipeline.unet.to(memory_format=LAYOUT)  # another layout is another order of summation
    pipeline.scheduler = scheduler(sampler, model.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    first = noise(0, range(3), model.latent_shape)
    theirs = pipeline(
        CAPTIONS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=first,
        generator=streams(1, range(3)),
        eta=0.0,
        output_type="latent",
    ).images
    with torch.inference_mode():
        ours = sample(
            model,
            model.embed(CAPTIONS),
            model.embed([""]),
            first,
            sampler=sampler,
            steps=steps,
            guidance=guidance,
            generator=streams(1, range(3)),
        )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_step_count_starts_where_the_noise_is(model, sampler, steps):
    solver = scheduler(sampler, model.scheduler.config)
    solver.set_timesteps(steps)
    assert len(solver.timesteps) == steps
    assert solver.timesteps[0] == 999


def test_a_leading_spacing_in_the_model_s_config_is_not_used(model):
    config = {**model.scheduler.config, "timestep_spacing": "leading"}
    assert [scheduler(name, config).config.timestep_spacing for name in ("ddim", "dpm++", "unipc")] == ["trailing"] * 3


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc"])
def test_a_perfect_noise_predictor_gives_back_the_clean_latents(model, sampler):
    """One point as the data: eps = (z - alpha z0) / sigma. Every solver must end on it."""
    alphas = scheduler("ddim", model.scheduler.config).alphas_cumprod
    clean = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    class Perfect:
        told_w = False

        def unet(self, z, t, encoder_hidden_states, timestep_cond):
            eps = (z - alphas[t] ** 0.5 * clean) / (1 - alphas[t]) ** 0.5
            return type("Output", (), {"sample": eps})

    perfect = Perfect()
    perfect.scheduler = model.scheduler
    context = torch.zeros(2, 1, 1)
    drawn = sample(perfect, context, context[:1], noise(0, range(2), (4, 8, 8)), sampler=sampler, steps=4)
    torch.testing.assert_close(drawn, clean, rtol=1e-3, atol=1e-3)


def test_dpm_solver_ends_at_the_schedules_own_least_noise(model):
    solver = scheduler("dpm", model.scheduler.config)
    solver.set_timesteps(4)
    assert solver.sigmas[-1].item() == pytest.approx(0.0292, abs=1e-3)


def test_an_unknown_sampler_is_named(model):
    with pytest.raises(SlamError, match=r"'euler' is not one of ddim, dpm, dpm\+\+, unipc, lcm"):
        scheduler("euler", model.scheduler.config)


def test_noise_of_a_picture_depends_on_seed_and_index_alone():
    whole = noise(7, range(5), (4, 8, 8))
    assert torch.equal(whole[3:], noise(7, [3, 4], (4, 8, 8)))
    other = noise(8, range(5), (4, 8, 8))  # not the same rows shifted by one, as seeds of seed + index would give
    assert len({row.sum().item() for row in torch.cat([whole, other])}) == 10


def test_noise_of_later_steps_is_new_and_also_of_seed_and_index_alone():
    own = streams(7, range(5))
    first, second = draw(own, (4, 8, 8)), draw(own, (4, 8, 8))
    alone = streams(7, [4])
    assert torch.equal(
        torch.stack([draw(alone, (4, 8, 8))[0], draw(alone, (4, 8, 8))[0]]), torch.stack([first[4], second[4]])
    )
    assert not torch.equal(first, second)
    assert first.std().item() == pytest.approx(1, abs=0.1)
