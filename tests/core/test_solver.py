import pytest
import torch
from diffusers import DDIMScheduler

from slam.core.guidance import guide
from slam.core.solver import ddim_step, solve
from slam.teacher.unet import SCHEDULE
from tests.core.analytic import GaussianTeacher, MixtureTeacher


def test_ddim_step_is_diffusers(schedule, batch):
    z, eps, _ = batch
    scheduler = DDIMScheduler(**SCHEDULE, set_alpha_to_one=False)
    scheduler.set_timesteps(50)
    for t in (981, 501, 21):
        theirs = scheduler.step(eps, t - 1, z).prev_sample
        ours = ddim_step(eps, z, torch.full((6,), t - 1), torch.full((6,), t - 21).clamp(min=0), schedule)
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_guidance_on_the_step_is_guidance_on_eps(schedule, batch):
    """Eq 18 writes z + w Phi(c) + (1 - w) Phi(null); ours guides eps."""
    z, eps_c, _ = batch
    eps_u = eps_c.flip(0)
    w = torch.linspace(1, 8, 6)
    t, s = torch.full((6,), 599), torch.full((6,), 579)
    weight = w.view(-1, 1, 1, 1)
    step = weight * ddim_step(eps_c, z, t, s, schedule) + (1 - weight) * ddim_step(eps_u, z, t, s, schedule)
    assert torch.allclose(ddim_step(guide(eps_c, eps_u, w), z, t, s, schedule), step, atol=1e-4)


def test_w_1_is_the_conditional_step(schedule, batch):
    z, _, c = batch
    teacher = GaussianTeacher(schedule)
    ladder = [torch.full((6,), 599), torch.full((6,), 579)]
    solved = solve(teacher, z, ladder, c, torch.full((1, 1, 1), 9.0), torch.ones(6), schedule)
    assert torch.allclose(solved, ddim_step(teacher(z, ladder[0], c), z, *ladder, schedule), atol=1e-6)


@pytest.mark.parametrize("exact_teacher", [GaussianTeacher, MixtureTeacher])
def test_multiple_estimation_converges_to_the_pf_ode_at_first_order(exact_teacher, schedule, batch):
    z, _, c = batch
    teacher = exact_teacher(schedule)
    t, s = torch.full((6,), 999), torch.full((6,), 799)
    exact = teacher.flow(z, t, s, c)

    def error(k_phi):
        ladder = [t - i * k_phi for i in range(200 // k_phi + 1)]
        return (solve(teacher, z, ladder, c, c[:1], torch.ones(6), schedule) - exact).abs().mean().item()

    errors = [error(k_phi) for k_phi in (100, 50, 25)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.2)
