import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st

from slam.core.schedule import make_schedule
from slam.teacher.unet import SCHEDULE


def test_variance_is_preserved(schedule):
    assert torch.allclose(schedule.alphas**2 + schedule.sigmas**2, torch.ones(1000), atol=1e-6)


def test_time_inverts_the_signal_to_noise_ratio_at_every_index(schedule):
    r = schedule.sigmas / schedule.alphas
    assert torch.allclose(schedule.time(r), torch.arange(1000.0), atol=2e-2)


@given(tau=st.floats(0, 999))
def test_circle_inverts_time(tau):
    schedule = make_schedule(DDIMScheduler(**SCHEDULE).alphas_cumprod)
    alpha, sigma = schedule.circle(torch.tensor([tau]))
    assert alpha.item() ** 2 + sigma.item() ** 2 == pytest.approx(1, abs=1e-6)
    assert schedule.time((sigma / alpha).flatten()).item() == pytest.approx(tau, abs=2e-2)


def test_zero_terminal_snr_is_refused():
    betas = DDIMScheduler(**SCHEDULE, rescale_betas_zero_snr=True)
    a = betas.alphas_cumprod.clone()
    a[-1] = 0
    with pytest.raises(ValueError, match="zero terminal SNR"):
        make_schedule(a)
