"""A random classifier and a random language model, of `transformers` and ours, and the metric that reads ours."""

import pytest
from hooked import ANSWERS

from experiments.patch.cells import Metric


@pytest.fixture(params=["clf_reference", "lm_reference"])
def network(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def metric(network):
    return Metric.between(network.ours, ANSWERS)
