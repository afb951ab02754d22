"""What holds on any schedule, sub-path, gamma and w, not only on Stable Diffusion's."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from slam.core.conditioning import time_matched
from slam.core.distance import huber, huber_vector, l2
from slam.core.draw import fixed_w, make_draw, no_gamma, solver_grid, uniform_gamma, uniform_w
from slam.core.guidance import guide
from slam.core.paths import direct_linking, endpoint, sigma_exact, sigma_linear, sub_path_exact, sub_path_linear
from slam.core.schedule import make_schedule
from slam.core.solver import ddim_step
from slam.core.weighting import by_noise, by_step, uniform

PATHS = [sub_path_linear, sub_path_exact, direct_linking]
GAMMA = torch.linspace(0, 1, 9)
SEEDS = st.integers(0, 2**31)
scales = st.floats(1, 15)
paths = st.sampled_from(PATHS)


def random(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def schedules(draw):
    """alphas_cumprod = 1 / (1 + r^2), log r rising in uneven steps; Stable Diffusion's from -3.5 to 2.7."""
    T, low, high = draw(st.integers(4, 300)), draw(st.floats(-3.5, -1)), draw(st.floats(0, 4))
    steps = torch.rand(T - 1, generator=torch.Generator().manual_seed(draw(SEEDS)), dtype=torch.double) + 0.05
    log_r = torch.cat([torch.zeros(1).double(), steps.cumsum(0) / steps.sum()]) * (high - low) + low
    return make_schedule(torch.sigmoid(-2 * log_r))


@st.composite
def ladders(draw):
    """A schedule, k and k_phi that fit it."""
    schedule = draw(schedules())
    k_phi = draw(st.integers(1, min(20, schedule.T)))
    return schedule, k_phi * draw(st.integers(1, min(6, schedule.T // k_phi))), k_phi


@st.composite
def sub_paths(draw):
    """A schedule and the ends s, t [9] of one of its sub-paths, repeated for the nine values of GAMMA."""
    schedule, k, k_phi = draw(ladders())
    t = draw(st.sampled_from(solver_grid(schedule.T, k_phi).tolist()))
    assume(t > 0)
    return schedule, torch.full((9,), max(t - k, 0)), torch.full((9,), t)


@given(sub_paths(), paths, SEEDS)
def test_gamma_1_is_z_t_and_gamma_0_is_z_s_at_the_paths_alpha(sub_path, path, seed):
    schedule, s, t = sub_path
    z_s, z_t = random(seed, 2, 9, 1, 2, 2)
    start, end = schedule.alpha(s), schedule.alpha(t)
    point = path(z_s, z_t, s, t, GAMMA, schedule)
    scale = (point.alpha / start)[0]  # alpha_t / alpha_s, and 1 for direct linking
    assert torch.allclose(scale, torch.ones(()) if path is direct_linking else (end / start)[0])
    for mine, at_0 in zip(point, (z_s, start, schedule.sigma(s)), strict=True):
        assert torch.allclose(mine[0], (scale * at_0)[0], atol=1e-5)
    for mine, at_1 in zip(point, endpoint(z_s, z_t, s, t, None, schedule), strict=True):
        assert torch.allclose(mine[-1], at_1[-1], atol=1e-5)


@given(sub_paths())
def test_linear_sigma_is_never_below_the_exact_one_and_both_rise_with_gamma(sub_path):
    """Eq 25 is -2 gamma (1 - gamma) a (sigma_t - a), and a = alpha_t r_s < sigma_t."""
    schedule, s, t = sub_path
    linear, exact = (form(s, t, GAMMA, schedule).flatten() for form in (sigma_linear, sigma_exact))
    assert torch.allclose(linear[[0, -1]], exact[[0, -1]], rtol=5e-4)
    assert (exact <= linear * (1 + 5e-4)).all()
    assert (linear > 0).all() and (linear.diff() > 0).all() and (exact.square().diff() > -1e-6).all()


@given(sub_paths(), paths, SEEDS)
def test_the_time_matched_point_is_on_the_schedules_circle_at_tau(sub_path, path, seed):
    schedule, s, t = sub_path
    z_s, z_t = random(seed, 2, 9, 1, 2, 2)
    (z, alpha, sigma), tau, gamma = time_matched(path(z_s, z_t, s, t, GAMMA, schedule), t, GAMMA, schedule)
    assert gamma is None and tau[-1] == t[-1]
    assert (tau >= (s - 1e-2)).all() and (tau <= t + 1e-2).all() and (tau >= 0).all()
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(9, 1, 1, 1), atol=1e-5)
    for mine, theirs in zip((alpha, sigma), schedule.circle(tau), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@given(sub_paths(), scales, SEEDS)
def test_guidance_on_eps_is_guidance_on_the_step_and_none_at_w_1(sub_path, w, seed):
    schedule, s, t = sub_path
    eps_c, eps_u, z = random(seed, 3, 9, 1, 2, 2)
    w = torch.full((9,), w)
    step_c, step_u, step = (ddim_step(eps, z, t, s, schedule) for eps in (eps_c, eps_u, guide(eps_c, eps_u, w)))
    size = 1 + (step_c - step_u).abs().max() * w.max() + schedule.alpha(s).max() / schedule.alpha(t).min()
    assert ((guide(step_c, step_u, w) - step).abs() < 1e-5 * size).all()
    assert torch.allclose(guide(eps_c, eps_u, torch.ones(9)), eps_c, atol=1e-6)


@given(ladders(), st.booleans(), SEEDS)
def test_ladders_fall_evenly_from_the_grid_to_t_less_k_or_0(ladder, multiple_estimation, seed):
    schedule, k, k_phi = ladder
    rung = k_phi if multiple_estimation else k
    t = torch.stack(drawn(schedule.T, k, k_phi, seed, multiple_estimation=multiple_estimation).ladder)
    assert t.shape == (k // rung + 1, 16)
    assert (t[0] < schedule.T).all() and ((t[0] + 1) % k_phi == 0).all()
    for i, rungs in enumerate(t):
        assert torch.equal(rungs, (t[0] - i * rung).clamp(min=0))


def drawn(T, k, k_phi, seed, step=0, gamma_law=uniform_gamma, **switches):
    laws = {"gamma_law": gamma_law, "w_law": lambda g, n: uniform_w(g, n, 2, 8)}
    return make_draw(seed, step, 16, (1, 2, 2), T=T, k=k, k_phi=k_phi, **laws, **switches)


@given(SEEDS, st.integers(0, 10**6), st.integers(0, 15), st.integers(1, 16), st.sampled_from([uniform_gamma, no_gamma]))
def test_a_draw_is_a_function_of_seed_and_step_and_rows_are_its_slices(seed, step, first, count, law):
    once, again, later = (drawn(1000, 100, 20, seed, at, law) for at in (step, step, step + 1))
    part = slice(first, first + count)
    for whole, same, rows in zip(*map(fields, (once, again, once.rows(part))), strict=True):
        assert torch.equal(whole, same) and torch.equal(whole[part], rows)
    assert not torch.equal(once.noise, later.noise)
    assert (once.gamma is None) == (law is no_gamma)


def fields(draw):
    return [*draw.ladder, draw.w, draw.noise] + ([] if draw.gamma is None else [draw.gamma])


@given(SEEDS, st.floats(0, 0.99))
def test_gamma_is_1_in_about_the_share_that_is_asked_and_below_elsewhere(seed, share):
    gamma = uniform_gamma(torch.Generator().manual_seed(seed), 4000, at_1=share)
    ones = (gamma == 1).float().mean().item()
    assert ones == pytest.approx(share, abs=5 * (share * (1 - share) / 4000) ** 0.5 + 1e-9)
    assert (gamma >= 0).all() and (gamma <= 1).all()


@given(SEEDS, scales, st.floats(0.5, 15))
def test_w_is_in_its_range(seed, low, width):
    w = uniform_w(torch.Generator().manual_seed(seed), 4000, low, low + width)
    assert (w >= low * (1 - 1e-6)).all() and (w <= (low + width) * (1 + 1e-6)).all()
    assert w.mean().item() == pytest.approx(low + width / 2, abs=0.05 * width)
    assert (fixed_w(torch.Generator(), 3, low) == torch.full((3,), low)).all()


@given(SEEDS, st.floats(-6, 3), st.floats(1e-4, 10))
def test_distances_are_0_at_equality_symmetric_and_huber_is_below_the_norm(seed, log_size, c):
    x, y = 10**log_size * random(seed, 2, 4, 2, 3, 3)
    for distance in (l2, lambda x, y: huber(x, y, c), lambda x, y: huber_vector(x, y, c)):
        assert distance(x, x).abs().max() <= 2e-7 * c  # one rounding
        assert (distance(x, y) >= -2e-7 * c).all()
        assert torch.equal(distance(x, y), distance(y, x))
    difference = (x - y).flatten(1)
    for value, size in (
        (huber(x, y, c), difference.abs().mean(1)),
        (huber_vector(x, y, c), difference.norm(dim=1)),
    ):
        rounding = 1e-6 * (size + c)
        assert (value <= size + rounding).all() and (value >= size - c - rounding).all()
    assert (huber(x, y, c) <= l2(x, y) / (2 * c) + 1e-6 * c).all()


@given(sub_paths())
def test_weights_are_positive_and_the_closed_forms(sub_path):
    schedule, s, t = sub_path
    r_s, r_t = ((schedule.sigma(time) / schedule.alpha(time)).flatten() for time in (s, t))
    assert torch.allclose(by_noise(t, s, schedule), (schedule.alpha(t) / schedule.sigma(t)).flatten())
    assert torch.allclose(by_step(t, s, schedule), 1 / (r_t - r_s))
    for weight in (uniform, by_step, by_noise):
        found = weight(t, s, schedule)
        assert found.shape == (9,) and (found > 0).all() and found.isfinite().all()
