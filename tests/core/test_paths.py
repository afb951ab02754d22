"""The closed forms of Eq 12, 24, 25, 26, 28, and Monte Carlo where a distribution is claimed."""

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from slam.core.conditioning import time_matched
from slam.core.paths import direct_linking, endpoint, sigma_exact, sigma_linear, sub_path_exact, sub_path_linear
from slam.core.schedule import make_schedule
from slam.core.solver import ddim_step
from slam.teacher.unet import SCHEDULE

PATHS = [sub_path_linear, sub_path_exact, direct_linking]


def times(t, k, n):
    return torch.full((n,), t - k), torch.full((n,), t)


@pytest.mark.parametrize("path", PATHS)
def test_gamma_1_is_z_t_with_its_marginal(path, schedule, batch):
    z_s, z_t, _ = batch
    s, t = times(599, 100, len(z_t))
    point = path(z_s, z_t, s, t, torch.ones(len(z_t)), schedule)
    assert torch.allclose(point.z, z_t, atol=1e-6)
    assert torch.equal(point.alpha, schedule.alpha(t))
    assert torch.allclose(point.sigma, schedule.sigma(t), atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_gamma_none_is_the_endpoint(path, schedule, batch):
    z_s, z_t, _ = batch
    s, t = times(599, 100, len(z_t))
    for mine, plain in zip(path(z_s, z_t, s, t, None, schedule), endpoint(z_s, z_t, s, t, None, schedule), strict=True):
        assert torch.equal(mine, plain)


def test_gamma_0_is_z_s_rescaled(schedule, batch):
    z_s, z_t, _ = batch
    s, t = times(599, 100, len(z_t))
    ratio = schedule.alpha(t) / schedule.alpha(s)
    point = sub_path_linear(z_s, z_t, s, t, torch.zeros(len(z_t)), schedule)
    assert torch.allclose(point.z, ratio * z_s)
    assert torch.allclose(point.sigma, ratio * schedule.sigma(s))


def test_direct_linking_at_gamma_0_is_z_s(schedule, batch):
    z_s, z_t, _ = batch
    s, t = times(599, 100, len(z_t))
    point = direct_linking(z_s, z_t, s, t, torch.zeros(len(z_t)), schedule)
    assert torch.allclose(point.z, z_s)
    assert torch.allclose(point.alpha, schedule.alpha(s))
    assert torch.allclose(point.sigma, schedule.sigma(s))


@pytest.mark.parametrize("path", [sub_path_exact, direct_linking])
@pytest.mark.parametrize(("t", "k", "gamma"), [(999, 100, 0.5), (599, 100, 0.3), (119, 20, 0.8)])
def test_exact_sigma_is_the_deviation_when_z_t_is_z_s_with_independent_noise(path, t, k, gamma, schedule):
    """Eq 24 and 28 by Monte Carlo: z_t = ratio z_s + sqrt(sigma_t^2 - ratio^2 sigma_s^2) xi."""
    n, z0 = 200_000, 0.7
    g = torch.Generator().manual_seed(1)
    s_, t_ = torch.tensor([t - k]), torch.tensor([t])
    ratio = schedule.alpha(t_) / schedule.alpha(s_)
    z_s = schedule.alpha(s_) * z0 + schedule.sigma(s_) * torch.randn(1, 1, 1, n, generator=g)
    xi = torch.randn(1, 1, 1, n, generator=g)
    z_t = ratio * z_s + (schedule.sigma(t_) ** 2 - ratio**2 * schedule.sigma(s_) ** 2).sqrt() * xi
    point = path(z_s, z_t, s_, t_, torch.tensor([gamma]), schedule)
    assert point.z.mean().item() == pytest.approx((point.alpha * z0).item(), abs=0.01)
    assert point.z.std().item() == pytest.approx(point.sigma.item(), rel=0.01)


@settings(deadline=None)
@given(t=st.integers(25, 49), rungs=st.integers(1, 25), gamma=st.floats(0, 1))
def test_exact_less_linear_variance_is_eq_25(t, rungs, gamma):
    """With a = (alpha_t / alpha_s) sigma_s: sigma^2 - sigma'^2 = 2 gamma (1 - gamma) a (a - sigma_t)."""
    schedule = make_schedule(DDIMScheduler(**SCHEDULE).alphas_cumprod)
    t_, s_ = torch.tensor([20 * t + 19]), torch.tensor([max(0, 20 * (t - rungs) + 19)])
    g = torch.tensor([gamma])
    ratio, sigma_s, sigma_t = schedule.alpha(t_) / schedule.alpha(s_), schedule.sigma(s_), schedule.sigma(t_)
    a = ratio * sigma_s
    difference = sigma_exact(s_, t_, g, schedule) ** 2 - sigma_linear(s_, t_, g, schedule) ** 2
    closed = 2 * gamma * (1 - gamma) * a * (a - sigma_t)
    assert torch.allclose(difference, closed, atol=2e-6)
    assert difference.item() <= 2e-6  # the linear form never understates


@pytest.mark.parametrize("t", [39, 199, 599, 999])
def test_on_one_ddim_step_the_time_matched_point_is_the_ddim_point_at_tau(t, schedule, batch):
    z0, noise, _ = batch
    s_, t_ = times(t, 20, len(z0))
    eps = noise * 0.9 + 0.1
    z_t = schedule.alpha(t_) * z0 + schedule.sigma(t_) * noise
    z_s = ddim_step(eps, z_t, t_, s_, schedule)
    gamma = torch.linspace(0, 0.95, len(z0))
    point, tau, rest = time_matched(sub_path_linear(z_s, z_t, s_, t_, gamma, schedule), t_, gamma, schedule)
    alpha, sigma = schedule.circle(tau)
    start = (z_t - schedule.sigma(t_) * eps) / schedule.alpha(t_)
    assert rest is None
    assert torch.allclose(point.alpha**2 + point.sigma**2, torch.ones(len(z0), 1, 1, 1), atol=1e-5)
    assert torch.allclose(point.z, alpha * start + sigma * eps, atol=2e-3)


def test_time_matched_at_gamma_1_is_the_plain_query_bit_for_bit(schedule, batch):
    z_s, z_t, _ = batch
    s, t = times(599, 20, len(z_t))
    ones = torch.ones(len(z_t))
    query = time_matched(sub_path_linear(z_s, z_t, s, t, ones, schedule), t, ones, schedule)
    assert torch.equal(query.point.z, z_t)
    assert torch.equal(query.t, t.float())
