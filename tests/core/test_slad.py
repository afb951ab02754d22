from functools import partial

import pytest
import torch
from diffusers import LCMScheduler

from slam.core.boundary import c_out, c_skip, predict_z0
from slam.core.conditioning import by_embedding, time_matched
from slam.core.distance import huber, l2
from slam.core.draw import fixed_w, make_draw, no_gamma, solver_grid, uniform_gamma
from slam.core.gap import gap
from slam.core.paths import endpoint, sub_path_linear
from slam.core.sample import sample, timesteps
from slam.core.slad import slad_loss
from slam.teacher.unet import SCHEDULE
from tests.core.analytic import GaussianTeacher


def w_is(w):
    return partial(fixed_w, w=w)


def draw_of(step=0, seed=0, batch=6, k=100, gamma_law=uniform_gamma):
    return make_draw(seed, step, batch, (2, 3, 3), T=1000, k=k, k_phi=20, gamma_law=gamma_law, w_law=w_is(3.0))


def net(z, t, c, gamma=None, w=None):
    return torch.tanh(z) * (1 + t.view(-1, 1, 1, 1) / 1000) + c[:, :1, :1, None]


@pytest.mark.parametrize("condition", [by_embedding, time_matched])
def test_slam_at_gamma_1_is_lcm_bit_for_bit(condition, schedule, batch):
    z0, _, c = batch
    plain = draw_of(gamma_law=no_gamma)
    common = (net, net, GaussianTeacher(schedule), z0, c, c[:1])
    lcm = slad_loss(*common, plain, endpoint, schedule, huber)
    for gamma in (None, torch.ones(6)):
        slam = slad_loss(*common, plain._replace(gamma=gamma), sub_path_linear, schedule, huber, condition)
        assert torch.equal(slam, lcm)


def test_no_gradient_reaches_the_target(schedule, batch):
    z0, _, c = batch
    a, b = (torch.ones((), requires_grad=True) for _ in range(2))
    loss = slad_loss(
        lambda *x, **_: a * x[0], lambda *x, **_: b * x[0], net, z0, c, c[:1], draw_of(), sub_path_linear, schedule, l2
    )
    loss.mean().backward()
    assert a.grad is not None
    assert b.grad is None


def test_the_exact_consistency_function_has_almost_no_loss(schedule, batch):
    """On the analytic teacher the PF-ODE is solved exactly in small steps, so F(z_t, t) = F(z_s, s)."""
    z0, _, c = batch
    teacher = GaussianTeacher(schedule)

    def oracle(z, t, c, gamma=None, w=None):
        """The eps that makes F(z, t) the PF-ODE's end."""
        alpha, sigma, _, _ = teacher.moments(t, c)
        end = teacher.flow(z, t, torch.zeros(len(z), dtype=torch.long), c)
        return (z - alpha * (end - c_skip(t) * z) / c_out(t)) / sigma

    draw = make_draw(0, 0, 6, (2, 3, 3), T=1000, k=20, k_phi=1, gamma_law=no_gamma, w_law=w_is(1.0))
    draw = draw._replace(ladder=[t.clamp(min=100) for t in draw.ladder])
    loss = slad_loss(oracle, oracle, teacher, z0, c, c[:1], draw, endpoint, schedule, l2)
    naive = slad_loss(net, net, teacher, z0, c, c[:1], draw, endpoint, schedule, l2)
    assert loss.max() < 1e-4
    assert naive.mean() > 1e-2


def test_draws_are_functions_of_seed_and_step():
    for field in ("gamma", "noise"):
        assert torch.equal(getattr(draw_of(3), field), getattr(draw_of(3), field))
        assert not torch.equal(getattr(draw_of(3), field), getattr(draw_of(4), field))
        assert not torch.equal(getattr(draw_of(3, seed=1), field), getattr(draw_of(3, seed=2), field))


def test_rows_of_a_draw_are_the_draws_rows():
    whole = draw_of(batch=8)
    parts = [whole.rows(slice(i, i + 4)) for i in (0, 4)]
    assert torch.equal(torch.cat([part.noise for part in parts]), whole.noise)
    assert torch.equal(torch.cat([part.ladder[-1] for part in parts]), whole.ladder[-1])


@pytest.mark.parametrize(("k", "rungs"), [(20, 2), (100, 6)])
def test_ladders_run_from_t_to_t_less_k_and_stop_at_0(k, rungs):
    ladder = draw_of(batch=512, k=k).ladder
    assert len(ladder) == rungs
    assert (ladder[0].min(), ladder[0].max()) == (19, 999)
    assert torch.equal(ladder[-1], (ladder[0] - k).clamp(min=0))


def test_every_time_that_is_a_target_is_a_start_too():
    """At gamma = 1 a network is trained at the starts alone: a target elsewhere would stay what it was."""
    ladder = draw_of(batch=4096, k=100).ladder
    assert set(ladder[-1].tolist()) - {0} <= set(ladder[0].tolist())


def test_the_solver_grid_is_the_one_lcm_draws_its_steps_from():
    scheduler = LCMScheduler(**SCHEDULE)
    scheduler.set_timesteps(50, original_inference_steps=50)
    assert solver_grid(1000, 20).flip(0).tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_timesteps_are_lcm_schedulers(steps):
    scheduler = LCMScheduler(**SCHEDULE)
    scheduler.set_timesteps(steps, original_inference_steps=50)
    assert timesteps(steps) == scheduler.timesteps.tolist()


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_sample_is_lcm_scheduler_given_the_same_noise(steps, schedule, batch):
    _, noise, c = batch
    scheduler = LCMScheduler(**SCHEDULE)
    scheduler.set_timesteps(steps, original_inference_steps=50)
    theirs, g = noise, torch.Generator().manual_seed(5)
    for t in scheduler.timesteps:
        eps = net(theirs, t.expand(6), c)
        theirs, denoised = scheduler.step(eps, t, theirs, generator=g, return_dict=False)
    ours = sample(net, noise, c, steps, schedule, torch.Generator().manual_seed(5))
    assert torch.allclose(ours, denoised, atol=1e-4)


def test_boundary_condition_holds_at_0(schedule, batch):
    z0, _, c = batch
    zero = torch.zeros(6, dtype=torch.long)
    point = endpoint(z0, z0, zero, zero, None, schedule)
    assert torch.equal(predict_z0(net, point, zero, c, None), z0)


def test_huber_is_quadratic_near_0_and_linear_far_away():
    x = torch.tensor([[[[1e-5]]], [[[3.0]]]])
    near, far = huber(x, torch.zeros_like(x))
    assert near.item() == pytest.approx(1e-10 / (2 * 0.001), rel=1e-2)
    assert far.item() == pytest.approx(3 - 0.001, rel=1e-5)


def test_gap_of_the_point_mass_predictor_is_0(schedule, batch):
    """When all data is one point m, f(x, t) = m at every t."""
    z0, noise, c = batch
    teacher = GaussianTeacher(schedule, variance=0.0)
    t = torch.tensor([119, 199, 399, 599, 799, 999])
    assert gap(teacher, z0, c, noise, t, 20, schedule).max() < 1e-3
    assert gap(net, z0, c, noise, t, 20, schedule).min() > 1e-3
