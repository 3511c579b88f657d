"""Random classifiers and language models, GPT-2 and GPT-Neo, of `transformers` and ours, and what reads them.

The texts of the tests are longer than the window of the GPT-Neos' layer 1."""

import pytest
from hooked import ANSWERS

from experiments.patch.cells import Metric


@pytest.fixture(params=["clf_reference", "lm_reference", "neo_clf_reference", "neo_lm_reference"])
def network(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def metric(network):
    return Metric.between(network.ours, ANSWERS)
