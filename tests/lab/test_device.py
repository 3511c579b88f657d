"""Where a model runs: what is asked for, or a clear refusal."""

import pytest
import torch

from lab.device import Device
from model import InputError


def there(monkeypatch, *, cuda, mps, bf16=True):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "bf16", "expected"),
    [
        (True, True, True, ("cuda", "bf16")),
        (True, False, False, ("cuda", "fp32")),
        (False, True, True, ("mps", "fp32")),
        (False, False, True, ("cpu", "fp32")),
    ],
)
def test_auto_takes_the_fastest_there_is(monkeypatch, cuda, mps, bf16, expected):
    there(monkeypatch, cuda=cuda, mps=mps, bf16=bf16)
    device = Device.choose("auto", "auto")
    assert (device.device.type, device.precision) == expected


def test_a_device_that_is_not_here_is_refused_with_those_that_are(monkeypatch):
    there(monkeypatch, cuda=False, mps=True)
    with pytest.raises(InputError, match="--device cuda: not on this machine; there is mps, cpu"):
        Device.choose("cuda", "auto")


def test_autocast_acts_in_bf16_only():
    x = torch.ones(3, 5)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with Device.choose("cpu", precision).autocast():
            assert (x @ x.T).dtype == dtype


def test_the_rate_of_matrix_products_is_measured():
    assert 1e8 < Device.choose("cpu", "fp32").product_rate() < 1e15
