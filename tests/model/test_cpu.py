"""GELU and dropout on a CPU: what torch computes, by quicker calls."""

import pytest
import torch
from tiny import DEVICES
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from model import GPT2, GPT2Config
from model.cpu import Dropout, linear_gelu

FUSED = "mkldnn::_linear_pointwise"
needs_fused = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(7, 29)


def apply(linear, x):
    """What comes out without gradients, and how often oneDNN was asked."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as profiled:
        out = linear_gelu(linear, x)
    return out, sum(event.name == FUSED for event in profiled.events())


def reference(linear, x):
    return F.gelu(F.linear(x.double(), linear.weight.double(), linear.bias.double()), approximate="tanh")


@needs_fused
@pytest.mark.parametrize("shape", [(1, 7), (5, 7), (3, 11, 7), (2, 3, 5, 7)])
@pytest.mark.parametrize("scale", [0, 1, 100])
def test_gelu_behind_a_product_is_one_call(linear, shape, scale):
    x = scale * torch.randn(shape)
    out, fused = apply(linear, x)
    assert fused == 1
    torch.testing.assert_close(out.double(), reference(linear, x), atol=2e-6 * max(1, scale), rtol=1e-5)


def test_it_is_the_tanh_form(linear):
    x = torch.linspace(-3, 3, 5 * 7).view(5, 7)
    erf = F.gelu(F.linear(x, linear.weight, linear.bias))
    assert (apply(linear, x)[0] - erf).abs().max() > 1e-4


@needs_fused
def test_rows_that_do_not_lie_side_by_side_are_read_right(linear):
    x = torch.randn(7, 13).T
    out, fused = apply(linear, x)
    assert fused == 1
    torch.testing.assert_close(out.double(), reference(linear, x), atol=2e-6, rtol=1e-5)


def hook_behind(linear):
    linear.register_forward_hook(lambda module, inputs, output: output + 1)


def hook_before(linear):
    linear.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))


@pytest.mark.parametrize("hook", [hook_behind, hook_before])
def test_a_hook_is_called(linear, hook):
    x = torch.randn(5, 7)
    hook(linear)
    with torch.no_grad():
        expected = F.gelu(linear(x), approximate="tanh")
    out, fused = apply(linear, x)
    assert fused == 0
    assert torch.equal(out, expected)
    assert (out.double() - reference(linear, x)).abs().max() > 0.1


def test_a_module_in_its_place_is_called(linear):
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    doubled, x = Doubled(7, 29), torch.randn(5, 7)
    doubled.load_state_dict(linear.state_dict())
    torch.testing.assert_close(apply(doubled, x)[0], F.gelu(2 * linear(x), approximate="tanh"))


def test_a_function_in_the_place_of_its_own_is_called(linear, monkeypatch):
    x = torch.randn(5, 7)
    monkeypatch.setattr(linear, "forward", lambda x: torch.ones(5, 29))
    out, fused = apply(linear, x)
    assert fused == 0
    torch.testing.assert_close(out, F.gelu(torch.ones(5, 29), approximate="tanh"))


def test_a_hook_on_all_modules_is_called(linear):
    seen = []
    with nn.modules.module.register_module_forward_hook(lambda module, inputs, output: seen.append(module)):
        assert apply(linear, torch.randn(5, 7))[1] == 0
    assert seen == [linear]


def test_pytorch_counts_its_products(linear):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        linear_gelu(linear, torch.randn(5, 7))
    assert counter.get_total_flops() == 2 * 5 * 7 * 29


def test_gradients_flow(linear):
    x = torch.randn(5, 7, requires_grad=True)
    linear_gelu(linear, x).sum().backward()
    grads = x.grad, linear.weight.grad, linear.bias.grad
    inputs = x, linear.weight, linear.bias
    expected = torch.autograd.grad(F.gelu(linear(x), approximate="tanh").sum(), inputs)
    for grad, wanted in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_stay_what_they_are(linear, dtype):
    x = torch.randn(5, 7, dtype=dtype)
    out, fused = apply(linear.to(dtype), x)
    assert fused == 0
    assert out.dtype == dtype


def test_autocast_stays_in_16_bits(linear):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert apply(linear, torch.randn(5, 7))[0].dtype == torch.bfloat16


def test_where_onednn_is_switched_off_torch_computes_it(linear):
    x = torch.randn(5, 7)
    with torch.backends.mkldnn.flags(enabled=False):
        out, fused = apply(linear, x)
    assert fused == 0
    torch.testing.assert_close(out.double(), reference(linear, x), atol=2e-6, rtol=1e-5)


def test_no_rows_are_no_error(linear):
    assert apply(linear, torch.empty(0, 7))[0].shape == (0, 29)


# Dropout.
@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("device", DEVICES)
def test_dropout_drops_its_share_and_keeps_the_mean(p, device):
    torch.manual_seed(0)
    n = 400_003  # no multiple of 4, as many as 64 bits hold
    out = Dropout(p)(torch.ones(n, device=device))
    dropped = (out == 0).double().mean().item()
    assert abs(dropped - p) < 4 * (p * (1 - p) / n) ** 0.5 + 2**-17
    kept = out[out != 0].unique()
    assert kept.tolist() == pytest.approx([1 / (1 - p)], rel=1e-3)
    rate = round(p * 2**16) / 2**16 if device == "cpu" else p
    assert abs(kept.item() * (1 - rate) - 1) < 1e-6  # the mean is kept exactly


def test_exactly_the_share_of_all_values_of_16_bits_is_dropped(monkeypatch):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    monkeypatch.setattr(torch.Tensor, "random_", lambda *arguments: every.view(torch.int64))
    out = Dropout(0.3)(torch.ones(2**16))
    assert (out == 0).sum() == round(0.3 * 2**16)


def test_what_is_dropped_does_not_depend_on_its_neighbours():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(400_000)) != 0).double() - 0.5
    for lag in range(1, 9):  # 64 bits make 4 numbers
        assert abs((kept[lag:] * kept[:-lag]).mean() / 0.25) < 4 / 400_000**0.5


def test_the_seed_decides_and_each_call_draws_anew():
    def draw():
        torch.manual_seed(3)
        return [Dropout(0.5)(torch.ones(3, 5, 7)) for _ in range(2)]

    first, second = draw(), draw()
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], first[1])


def test_gradients_are_dropped_where_values_are():
    torch.manual_seed(0)
    x = torch.randn(11, 13, requires_grad=True)
    out = Dropout(0.4)(x)
    out.sum().backward()
    torch.testing.assert_close(out, x * x.grad)
    assert 0 < (x.grad == 0).sum() < x.numel()


@pytest.mark.parametrize("p", [0.0, 1e-9, 0.999999, 1.0])
def test_rates_at_the_ends(p):
    out = Dropout(p)(torch.ones(1000))
    assert out.isfinite().all()
    assert (out != 0).double().mean() == pytest.approx(1 - p, abs=0.01)


def test_evaluation_drops_nothing_and_dtypes_stay():
    x = torch.randn(5, 7)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.5)(x.bfloat16()).dtype == torch.bfloat16


def test_the_network_drops_so_and_everywhere():
    network = GPT2(GPT2Config(2, 2, 6, n_ctx=5, vocab_size=11))
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    assert len(layers) == 1 + 2 * 2
    assert {type(layer) for layer in layers} == {Dropout}
