"""Where a model runs: what is asked for, or a clear refusal."""

from dataclasses import replace

import pytest
import torch
from two_processes import in_two

import lab.device
from lab.device import TOKENS, Device
from model import InputError

CPU = Device(torch.device("cpu"), "fp32")


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


class Clock:
    """Time that passes only where a computation waits, and a GPU that computes only while it is waited for."""

    def __init__(self, seconds):
        self.now, self.asked, self.seconds = 0.0, 0.0, iter(seconds)

    def __matmul__(self, other):
        self.asked += next(self.seconds)

    def synchronize(self):
        self.now, self.asked = self.now + self.asked, 0.0


@pytest.mark.parametrize(
    ("name", "precision", "n", "dtype"),
    [
        ("cpu", "fp32", 1024, torch.float32),
        ("cpu", "bf16", 1024, torch.bfloat16),
        ("cuda", "fp32", 8192, torch.float32),
        ("cuda", "bf16", 8192, torch.bfloat16),
    ],
)
def test_the_rate_is_that_of_finished_products(monkeypatch, name, precision, n, dtype):
    """Three slow ones to start with, then ten of 2 s in the middle."""
    clock, made = Clock([1000] * 3 + [1, 2, 2, 2, 2, 2, 2, 2, 2, 90]), []
    device = Device(torch.device(name), precision)
    monkeypatch.setattr(torch, "Generator", lambda device: f"its own on {device}")
    monkeypatch.setattr(torch, "randn", lambda *size, **options: made.append((size, options)) or clock)
    monkeypatch.setattr(torch.get_device_module(name), "synchronize", clock.synchronize)
    monkeypatch.setattr("lab.device.time.perf_counter", lambda: clock.now)
    assert device.product_rate() == n**3 / 2
    assert made == [((n, n), {"device": device.device, "dtype": dtype, "generator": f"its own on {name}"})] * 2


def test_measuring_the_rate_draws_no_dropout():
    before = torch.get_rng_state()
    CPU.product_rate()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_gpu_takes_more_tokens_at_once():
    assert Device(torch.device("cuda"), "fp32").tokens == 16 * CPU.tokens == 16 * TOKENS


def test_without_a_module_that_measures_it_the_peak_of_memory_is_not_known(monkeypatch):
    assert CPU.peak_memory() > 2**20
    monkeypatch.setattr(lab.device, "resource", None)  # as on Windows
    assert CPU.peak_memory() is None


# torch.compile.


@pytest.mark.parametrize(("choice", "on_cpu"), [("auto", "off"), ("on", "on"), ("off", "off")])
def test_auto_compiles_on_cuda(choice, on_cpu):
    assert CPU.compiles(choice) == on_cpu
    assert Device(torch.device("cuda"), "fp32").compiles(choice) == choice


# Several processes.


def test_one_process_is_alone_with_its_work():
    assert (CPU.first, CPU.as_single()) == (True, CPU)
    assert list(CPU.share("abc")) == list(CPU.gather_rounds(iter("abc"))) == ["a", "b", "c"]
    assert CPU.run_on_first(lambda: "made") == "made"
    tensor = torch.tensor([2.0, 3.0])
    CPU.add_up([tensor])
    assert tensor.tolist() == [2, 3]


@pytest.mark.parametrize("world", [1, 2, 3, 13])
def test_shares_are_a_partition(world):
    shares = [list(replace(CPU, rank=rank, world=world).share(iter(range(11)))) for rank in range(world)]
    assert sorted(item for share in shares for item in share) == list(range(11))
    assert {len(share) for share in shares} <= {11 // world, 11 // world + 1}
    assert [share[:1] for share in shares] == [[rank] if rank < 11 else [] for rank in range(world)]


@pytest.mark.parametrize(("restarts", "expected"), [(None, False), ("0", False), ("2", True)])
def test_it_knows_that_torchrun_has_started_it_again(monkeypatch, restarts, expected):
    for name, value in {"TORCHELASTIC_RUN_ID": restarts and "run", "TORCHELASTIC_RESTART_COUNT": restarts}.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert CPU.restarted == expected


def talk():
    """What a process under torchrun hears of the other."""
    device = Device.choose("cpu", "fp32")
    own = {0: ["a0", None, (), "a3"], 1: ["b0"]}[device.rank]  # what is false is an item too
    tensors = [torch.full((3,), 1.0 + device.rank), torch.full((2, 5), 10.0 * device.rank, dtype=torch.float64)]
    device.add_up(tensor for tensor in tensors)
    lines = {
        "device": str(device),
        "place": (device.rank, device.world, device.first, device.as_single().world),
        "gathered": list(device.gather_rounds(own)),
        "of one alone": list(device.gather_rounds(["from 1"] if device.rank else [])),
        "of none": list(device.gather_rounds([])),
        "first": device.run_on_first(lambda: f"made by {device.rank}"),
        "sums": [tensor.tolist() for tensor in tensors],
    }
    try:
        device.run_on_first(refuse)
    except (InputError, SystemExit) as end:
        return lines | {"refused": repr(end)}


def refuse():
    raise InputError("there is no such run")


@pytest.mark.slow
def test_two_processes_hear_the_same_of_each_other():
    first, second = in_two(talk)
    assert (first.pop("place"), second.pop("place")) == ((0, 2, True, 1), (1, 2, False, 1))
    assert (first.pop("refused"), second.pop("refused")) == ("InputError('there is no such run')", "SystemExit(2)")
    assert first == second
    assert first["gathered"] == ["a0", "b0", None, (), "a3"]
    assert (first["of one alone"], first["of none"]) == (["from 1"], [])
    assert first["first"] == "made by 0"
    assert first["sums"] == [[3.0] * 3, [[10.0] * 5] * 2]
    assert "2 processes" in first["device"]
