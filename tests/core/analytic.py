"""Exact teachers: data whose noise prediction and PF-ODE have closed forms, or solve to any precision.

Data elements are independent; c [B, L, D] is a prompt whose first number moves the data.
"""

import torch

from slam.core.schedule import Schedule


class GaussianTeacher:
    """Data z_0 ~ N(mean(c), variance). c [B, L, D]: the mean is its first number."""

    def __init__(self, schedule: Schedule, variance: float = 0.25) -> None:
        self.schedule, self.variance = schedule, variance

    def moments(self, t, c):
        alpha, sigma = circle(self.schedule, t)
        return alpha, sigma, c[:, 0, 0].view(-1, 1, 1, 1), alpha**2 * self.variance + sigma**2

    def __call__(self, z, t, c, gamma=None, w=None):
        """E[eps | z_t = z]."""
        alpha, sigma, mean, variance = self.moments(t, c)
        return sigma * (z - alpha * mean) / variance

    def flow(self, z, t, s, c):
        """The PF-ODE's exact solution: standardised coordinates are constant along it."""
        alpha_t, _, mean, variance_t = self.moments(t, c)
        alpha_s, _, _, variance_s = self.moments(s, c)
        return alpha_s * mean + (variance_s / variance_t).sqrt() * (z - alpha_t * mean)


class MixtureTeacher:
    """Data z_0 ~ sum_i weights[i] N(means[i] + c, deviations[i]^2): a predictor that is not linear in z."""

    def __init__(
        self, schedule: Schedule, weights=(0.5, 0.2, 0.3), means=(-1.0, 0.1, 1.2), deviations=(0.3, 0.3, 0.25)
    ):
        self.schedule = schedule
        self.weights, self.means, self.deviations = (
            torch.tensor(x, dtype=torch.double) for x in (weights, means, deviations)
        )

    def draw(self, shape, generator):
        """Clean data at c = 0, float32."""
        i = torch.multinomial(self.weights, torch.Size(shape).numel(), replacement=True, generator=generator)
        xi = torch.randn(len(i), generator=generator, dtype=torch.double)
        return (self.means[i] + self.deviations[i] * xi).view(shape).float()

    def marginal(self, t, c):
        """sigma [B, 1, 1, 1]; mean and standard deviation of z_t's components [B, 1, 1, 1, components]."""
        alpha, sigma = (x.double().unsqueeze(-1) for x in circle(self.schedule, t))
        mean = alpha * (self.means + c[:, 0, 0].double().view(-1, 1, 1, 1, 1))
        return sigma[..., 0], mean, (alpha**2 * self.deviations**2 + sigma**2).sqrt()

    def __call__(self, z, t, c, gamma=None, w=None):
        """E[eps | z_t = z]: of each component as in `GaussianTeacher`, weighed by its posterior."""
        sigma, mean, deviation = self.marginal(t, c)
        x = (z.double().unsqueeze(-1) - mean) / deviation
        posterior = (self.weights.log() - deviation.log() - x**2 / 2).softmax(-1)
        return (sigma * (posterior * x / deviation).sum(-1)).to(z.dtype)

    def logit(self, z, t, c):
        """log F - log(1 - F) of z_t's distribution F, float64: precise in both tails."""
        _, mean, deviation = self.marginal(t, c)
        x = (z.unsqueeze(-1) - mean) / deviation
        log_cdf, log_survival = ((self.weights.log() + torch.special.log_ndtr(side)).logsumexp(-1) for side in (x, -x))
        return log_cdf - log_survival

    def flow(self, z, t, s, c):
        """The PF-ODE's solution, by bisection: in one dimension it is monotone and carries the distribution along, so
        F_s(flow) = F_t(z)."""
        goal = self.logit(z.double(), t, c)
        low, high = (torch.full_like(goal, bound) for bound in (-64.0, 64.0))
        for _ in range(60):
            middle = (low + high) / 2
            below = self.logit(middle, s, c) < goal
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return ((low + high) / 2).to(z.dtype)


def circle(schedule, t):
    """(alpha, sigma), each [B, 1, 1, 1], at indices or fractional times t [B]."""
    return schedule.circle(t) if t.is_floating_point() else (schedule.alpha(t), schedule.sigma(t))
