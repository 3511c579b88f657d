"""The hard concrete distribution against a sampler in numpy and the integral over its density."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from experiments.ablate.hard_concrete import open_probability, sample_gates, settle_gates

PARAMETERS = (-3.0, -0.7, 0.0, 1.3, 4.0)
STRETCH = 1.1 + 0.1


def concrete_cdf(x, log_alpha):
    """Of the binary concrete distribution (Maddison et al. 2017), whose logit is logistic."""
    return stats.logistic.cdf(np.log(x / (1 - x)), loc=log_alpha / (2 / 3), scale=1 / (2 / 3))


@pytest.mark.parametrize("log_alpha", PARAMETERS)
def test_ends_and_mean_are_those_of_the_integral(log_alpha):
    gates = sample_gates(torch.tensor(log_alpha), torch.rand(400_000, generator=torch.Generator().manual_seed(0)))
    low, high = 0.1 / STRETCH, 1.1 / STRETCH  # where the stretched variable is 0, and 1
    closed, whole = concrete_cdf(low, log_alpha), 1 - concrete_cdf(high, log_alpha)
    assert (gates == 0).double().mean().item() == pytest.approx(closed, abs=0.003)
    assert (gates == 1).double().mean().item() == pytest.approx(whole, abs=0.003)
    assert open_probability(torch.tensor(log_alpha)).item() == pytest.approx(1 - closed, abs=1e-6)
    mean = quad(lambda gate: 1 - concrete_cdf((gate + 0.1) / STRETCH, log_alpha), 0, 1)[0]  # the integral of the tail
    assert gates.double().mean().item() == pytest.approx(mean, abs=0.003)


def test_samples_are_those_of_the_equations():
    rng = np.random.default_rng(0)
    u, log_alpha = rng.uniform(size=97), rng.normal(scale=3, size=97)
    s = 1 / (1 + np.exp(-(np.log(u) - np.log(1 - u) + log_alpha) / (2 / 3)))
    expected = np.clip(s * STRETCH - 0.1, 0, 1)
    np.testing.assert_allclose(sample_gates(torch.tensor(log_alpha), torch.tensor(u)), expected, atol=1e-12)
    settled = np.clip(STRETCH / (1 + np.exp(-log_alpha)) - 0.1, 0, 1)
    np.testing.assert_allclose(settle_gates(torch.tensor(log_alpha)), settled, atol=1e-12)


def test_the_gradient_of_the_mean_is_that_of_the_integral():
    log_alpha = torch.tensor(0.4, requires_grad=True)
    gates = sample_gates(log_alpha, torch.rand(400_000, generator=torch.Generator().manual_seed(1)))
    slope = torch.autograd.grad(gates.mean(), log_alpha)[0].item()

    def mean(parameter):
        return quad(lambda gate: 1 - concrete_cdf((gate + 0.1) / STRETCH, parameter), 0, 1)[0]

    assert slope == pytest.approx((mean(0.401) - mean(0.399)) / 0.002, rel=0.02)
