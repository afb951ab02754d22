"""How exact the core is in float32, and that it stays float32 around networks that run in bfloat16."""

from functools import partial

import numpy as np
import pytest
import torch

from slam.core.boundary import c_out, c_skip
from slam.core.conditioning import by_embedding, time_matched
from slam.core.distance import huber, huber_vector, l2
from slam.core.draw import fixed_w, make_draw, no_gamma, uniform_gamma
from slam.core.paths import direct_linking, endpoint, sub_path_exact, sub_path_linear
from slam.core.schedule import Schedule, make_schedule
from slam.core.slad import slad_loss
from slam.core.solver import solve
from slam.core.weighting import by_noise, by_step, uniform
from slam.teacher.unet import SCHEDULE
from tests.core.analytic import GaussianTeacher

PATHS = [sub_path_linear, sub_path_exact, direct_linking]
BATCH = 64


@pytest.fixture(scope="module")
def exact():
    """alphas_cumprod of Stable Diffusion, float64."""
    ends = SCHEDULE["beta_start"] ** 0.5, SCHEDULE["beta_end"] ** 0.5
    return np.cumprod(1 - np.linspace(*ends, 1000) ** 2)


@pytest.fixture(scope="module")
def double(exact):
    """Its schedule, float64: what the core computes from it is float64 throughout."""
    return Schedule(torch.from_numpy(exact**0.5), torch.from_numpy((1 - exact) ** 0.5))


@pytest.fixture(scope="module")
def single(exact):
    return make_schedule(torch.from_numpy(exact))


def draw_of(gamma_law=uniform_gamma, w=5.0):
    w_law = partial(fixed_w, w=w)
    return make_draw(0, 0, BATCH, (1, 4, 4), T=1000, k=100, k_phi=20, gamma_law=gamma_law, w_law=w_law)


def latents(dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return torch.randn(BATCH, 1, 4, 4, generator=g).to(dtype), torch.randn(BATCH, 1, 1, generator=g).to(dtype)


def doubled(draw):
    gamma = None if draw.gamma is None else draw.gamma.double()
    return draw._replace(gamma=gamma, w=draw.w.double(), noise=draw.noise.double())


def close(mine, theirs, rtol, atol=0.0):
    assert mine.dtype == torch.float32 and theirs.dtype == torch.float64
    assert torch.allclose(mine.double(), theirs, rtol=rtol, atol=atol), (mine - theirs).abs().max()


def test_alpha_and_sigma_are_exact_to_the_last_bit_of_float32(single, double):
    for mine, theirs in zip(single, double, strict=True):
        close(mine, theirs, rtol=2**-24)


def test_diffusers_float32_alphas_cumprod_costs_sigma_four_digits_at_most(schedule, double):
    for mine, theirs in zip(schedule, double, strict=True):
        close(mine, theirs, rtol=1e-4)


def test_boundary_coefficients_are_exact_at_every_time():
    t = torch.arange(1000)
    scaled = 10 * t.double().view(-1, 1, 1, 1)
    close(c_skip(t), 0.25 / (scaled**2 + 0.25), rtol=1e-6)
    close(c_out(t), scaled / (scaled**2 + 0.25).sqrt(), rtol=1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_points_are_exact_to_six_digits_and_their_sigma_to_five(path, single, double):
    """Five in Eq 24 and 28, which hold 1 - (alpha_t / alpha_s)^2, the difference of near equals."""
    draw, (z_s, z_t) = draw_of(), (latents()[0], latents()[0].flip(0))
    s, t = draw.ladder[-1], draw.ladder[0]
    mine = path(z_s, z_t, s, t, draw.gamma, single)
    theirs = path(z_s.double(), z_t.double(), s, t, draw.gamma.double(), double)
    close(mine.z, theirs.z, rtol=1e-6, atol=1e-6)
    close(mine.alpha, theirs.alpha, rtol=1e-6)
    close(mine.sigma, theirs.sigma, rtol=1e-6 if path is sub_path_linear else 1e-5)
    tau, exact_tau = (
        time_matched(point, t, gamma, schedule).t
        for point, gamma, schedule in ((mine, draw.gamma, single), (theirs, draw.gamma.double(), double))
    )
    close(tau, exact_tau, rtol=0, atol=0.02)  # of 1000 times


def test_five_guided_steps_are_exact_to_five_digits(single, double):
    draw, (z, c) = draw_of(), latents()
    mine = solve(GaussianTeacher(single), z, draw.ladder, c, c[:1], draw.w, single)
    z, c = latents(torch.float64)
    theirs = solve(GaussianTeacher(double), z, draw.ladder, c, c[:1], draw.w.double(), double)
    close(mine, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("distance", [l2, huber, huber_vector])
@pytest.mark.parametrize("weight", [uniform, by_step, by_noise])
@pytest.mark.parametrize("path", PATHS)
def test_the_loss_is_exact_to_four_digits(path, distance, weight, single, double):
    losses = []
    for schedule, draw, (z0, c) in (
        (single, draw_of(), latents()),
        (double, doubled(draw_of()), latents(torch.float64)),
    ):
        net, teacher = GaussianTeacher(schedule, 0.5), GaussianTeacher(schedule)
        terms = (z0, c, c[:1], draw, path, schedule, distance, time_matched, weight)
        losses.append(slad_loss(net, net, teacher, *terms))
    mine, theirs = losses
    close(mine, theirs.double(), rtol=1e-4, atol=1e-4 * theirs.mean().item())


class Network(torch.nn.Module):
    """Close to an exact noise predictor, through a matrix product, which autocast runs and returns in bfloat16."""

    def __init__(self, schedule, variance):
        super().__init__()
        self.exact = GaussianTeacher(schedule, variance)
        torch.manual_seed(0)
        self.mix = torch.nn.Linear(4, 4, bias=False)
        self.mix.weight.data = torch.eye(4) + 0.05 * self.mix.weight.data

    def forward(self, z, t, c, gamma=None, w=None):
        assert (z.dtype, c.dtype) == (torch.float32, torch.float32)
        return self.mix(self.exact(z, t, c))


@pytest.mark.parametrize("path", [*PATHS, endpoint])
@pytest.mark.parametrize("condition", [by_embedding, time_matched])
def test_around_bfloat16_networks_the_loss_is_float32_and_within_3_percent(path, condition, single):
    """eps has 8 bits, 0.4%, and the loss is of a difference of predictions. 1.3% was the most seen."""
    draw, (z0, c) = draw_of(no_gamma if path is endpoint else uniform_gamma, w=2.0), latents()
    student, target = Network(single, 0.6), Network(single, 0.3)
    teacher, dtypes = Network(single, 0.25), set()
    teacher.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))

    def loss():
        return slad_loss(student, target, teacher, z0, c, c[:1], draw, path, single, l2, condition)

    exact = loss().mean()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss()
        mixed.mean().backward()
    assert dtypes == {torch.float32, torch.bfloat16}
    assert (mixed.dtype, student.mix.weight.grad.dtype) == (torch.float32, torch.float32)
    assert mixed.mean().item() == pytest.approx(exact.item(), rel=0.03)


@pytest.mark.parametrize("path", [*PATHS, endpoint])
@pytest.mark.parametrize("condition", [by_embedding, time_matched])
def test_what_networks_return_in_bfloat16_is_used_as_those_numbers_in_float32(path, condition, single):
    """At one and the same prompt: `guide` takes the difference of two bfloat16 predictions in bfloat16."""
    draw, (z0, c) = draw_of(no_gamma if path is endpoint else uniform_gamma), latents()
    c = c[:1].expand(BATCH, 1, 1)

    def distance(x, y):
        assert (x.dtype, y.dtype) == (torch.float32, torch.float32)
        return huber(x, y)

    def loss(cast):
        nets = [lambda *x, v=v, **_: cast(GaussianTeacher(single, v)(*x).bfloat16()) for v in (0.6, 0.3, 0.25)]
        return slad_loss(*nets, z0, c, c[:1], draw, path, single, distance, condition)

    mine, theirs = loss(lambda eps: eps), loss(torch.Tensor.float)
    assert mine.dtype == torch.float32
    assert torch.allclose(mine, theirs, rtol=1e-5)


@pytest.mark.parametrize("path", [*PATHS, endpoint])
def test_alpha_sigma_and_the_time_stay_float32_under_autocast(path, single):
    draw, (z, _) = draw_of(), latents()
    with torch.autocast("cpu", torch.bfloat16):
        point = path(z, z.flip(0), draw.ladder[-1], draw.ladder[0], draw.gamma, single)
        query = time_matched(point, draw.ladder[0], draw.gamma, single)
    for part in (*point, *query.point, query.t, *single.circle(query.t)):
        assert part.dtype == torch.float32
