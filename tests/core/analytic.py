"""An exact teacher: data from a Gaussian N(m, v I) per prompt, whose noise prediction and PF-ODE have closed forms."""

from slam.core.schedule import Schedule


class GaussianTeacher:
    """Data z_0 ~ N(mean(c), variance). c [B, L, D]: the mean is its first number."""

    def __init__(self, schedule: Schedule, variance: float = 0.25) -> None:
        self.schedule, self.variance = schedule, variance

    def moments(self, t, c):
        alpha, sigma = (
            self.schedule.circle(t) if t.is_floating_point() else (self.schedule.alpha(t), self.schedule.sigma(t))
        )
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
