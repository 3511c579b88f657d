"""Predictions in the order of the texts, whatever shares a batch."""

import numpy as np
import pytest
import torch

from lab.device import Device
from lab.predict import predict

CPU = Device(torch.device("cpu"), "fp32")


@pytest.fixture
def sequences():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 101, length).tolist() for length in (3, 13, 1, 7, 7, 2, 11)]


def test_probabilities_stand_in_the_order_of_the_texts(clf, sequences):
    with torch.no_grad():
        one_by_one = [clf(torch.tensor([ids])).double().softmax(dim=1)[0].numpy() for ids in sequences]
    np.testing.assert_allclose(predict(clf.train(), sequences, CPU), one_by_one, atol=1e-6)
    assert not clf.training


def test_bf16_on_the_cpu_predicts_nearly_the_same(clf, sequences):
    fp32, bf16 = (predict(clf, sequences, Device(torch.device("cpu"), precision)) for precision in ("fp32", "bf16"))
    assert not np.array_equal(fp32, bf16)
    np.testing.assert_allclose(fp32, bf16, atol=0.1)
