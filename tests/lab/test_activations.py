"""What is recorded of each site, against forward passes of `transformers`, text by text."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hooked import find_merge
from sklearn.linear_model import LogisticRegression

from lab import activations
from lab.activations import Site, read_activations, record, sites
from lab.device import Device
from model import GPT2, GPT2Config, InputError, Trace

CPU = Device(torch.device("cpu"), "fp32")
L, H, D, C, V = 3, 5, 7, 35, 101


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(3)
    return [rng.integers(0, V, n).tolist() for n in (3, 7, 13, 5, 7, 1, 11, 2)]


@pytest.fixture
def some():
    """Positions of three texts' worth of rows and more: none of text 0, out of order in text 6."""
    return [np.array(kept, dtype=np.int64) for kept in ([], [6, 0], [2], [4], [1, 2, 3], [0], [7, 10, 3], [1])]


@pytest.fixture(autouse=True)
def several_batches(monkeypatch):
    """Texts of 13 and 11 tokens share one, padded, and so do shorter ones."""
    monkeypatch.setattr("lab.device.TOKENS", 29)


def emitted(hf, ids):
    """Return a function from a site to what it emits, (T, width), caught in `transformers`, without padding."""
    caught, handles = {}, []

    def catch(name, module, of_input):
        def hook(module, inputs, result=None):
            caught[name] = (inputs[0] if of_input else result)[0]

        register = module.register_forward_pre_hook if of_input else module.register_forward_hook
        handles.append(register(hook))

    for layer, block in enumerate(hf.transformer.h):
        catch(("resid", layer), block, True)
        catch(("z", layer), find_merge(block), True)
        catch(("mlp", layer), block.mlp, False)
    catch(("resid", L), hf.transformer.ln_f, True)
    with torch.no_grad():
        hf.transformer(torch.tensor([ids]))
    for handle in handles:
        handle.remove()

    def at(site):
        if site.kind != "head":
            return caught[site.kind, site.layer].numpy()
        return caught["z", site.layer][:, site.head * D : (site.head + 1) * D].numpy()

    return at


def test_sites_are_the_residual_stream_then_the_heads_in_order_then_the_mlps(tiny):
    listed = sites(tiny)
    assert listed[:4] == [Site("resid", layer) for layer in range(4)]
    assert listed[4:10] == [*(Site("head", 0, head) for head in range(5)), Site("head", 1, 0)]
    assert listed[19:] == [Site("mlp", 0), Site("mlp", 1), Site("mlp", 2)]
    assert len(set(listed)) == len(listed) == 22


def test_every_site_holds_what_plain_passes_emit(each_clf, texts, some, tmp_path):
    """Positions may be lists, too, and some of them empty."""
    last, lists = [[len(ids) - 1] for ids in texts], [kept.tolist() for kept in some]
    readings = {"last": last, "mean": None, "some": some, "lists": lists}
    recorded = record(each_clf.ours.trunk, texts, readings, tmp_path, CPU)
    assert {file.parent for reading in recorded.values() for file in reading.files.values()} == {tmp_path}
    plain = [emitted(each_clf.hf, ids) for ids in texts]
    for site in sites(each_clf.ours.config):
        outputs = [at(site) for at in plain]  # of each text (T, width)
        expected = {
            "last": np.stack([output[-1] for output in outputs]),
            "mean": np.stack([output.mean(0) for output in outputs]),
            "some": np.concatenate([output[kept] for output, kept in zip(outputs, some, strict=True)]),
        }
        for reading, values in expected.items():
            np.testing.assert_allclose(recorded[reading].of(site), values, rtol=1e-4, atol=2e-5)
        assert np.array_equal(recorded["lists"].of(site), recorded["some"].of(site))


def test_several_sites_stand_side_by_side_in_memory(clf, texts, tmp_path):
    mean = record(clf.trunk, texts, {"mean": None}, tmp_path, CPU)["mean"]
    chosen = [Site("head", 2, 4), Site("mlp", 0), Site("head", 0, 1)]
    together = mean.of(*chosen)
    assert together.shape == (len(texts), D + C + D)
    assert np.array_equal(together, np.hstack([mean.of(site) for site in chosen]))
    assert len(np.unique(together, axis=1).T) == D + C + D
    for x in (together, mean.of(chosen[0])):
        assert type(x) is np.ndarray
        assert x.dtype == np.float32
        assert x.base is None  # no view of a mapped file


def test_what_is_recorded_in_memory_is_what_a_plain_pass_emits(clf, texts):
    last = [np.array([len(ids) - 1]) for ids in texts]
    head, stream = read_activations(clf.trunk, texts, last, [Site("head", 1, 2), Site("resid", 0)], CPU)
    for i, ids in enumerate(texts):
        trace = Trace("z", "resid_pre")
        clf.trunk(torch.tensor([ids]), trace=trace)
        np.testing.assert_allclose(head[i], trace.z[1][0, 2, -1].detach(), atol=1e-5)
        np.testing.assert_allclose(stream[i], trace.resid_pre[0][0, -1].detach(), atol=1e-5)


def test_half_precision_is_stored_as_float32(clf, texts, tmp_path):
    exact = record(clf.trunk, texts, {"mean": None}, tmp_path, CPU)["mean"].of(*sites(clf.config))
    device = Device(CPU.device, "bf16")
    half = record(clf.trunk, texts, {"mean": None}, tmp_path, device)["mean"].of(*sites(clf.config))
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.1 * np.abs(exact).max()


def test_the_last_token_is_known_before_the_first_layer_only_at_the_right_index(texts, tmp_path):
    """The trap of a published probe that read one token past the end."""
    torch.manual_seed(0)
    trunk = GPT2(GPT2Config(1, 1, 97, n_ctx=13, vocab_size=V)).eval()
    rng = np.random.default_rng(0)
    ends = np.resize(np.arange(50), 600)
    ended = [[*rng.integers(50, V, rng.integers(1, 12)), end] for end in ends]
    shifts = {"last": 1, "one before": 2}
    positions = {name: [[len(ids) - shift] for ids in ended] for name, shift in shifts.items()}
    recorded = record(trunk, ended, positions, tmp_path, CPU)

    def accuracy(reading):
        x = recorded[reading].of(Site("resid", 0)) / 0.02  # as the weights are scaled
        return LogisticRegression(C=1.0).fit(x[:400], ends[:400]).score(x[400:], ends[400:])

    assert accuracy("last") == 1
    assert accuracy("one before") < 0.1


def test_positions_that_a_text_does_not_have_are_refused(clf, texts, some, tmp_path):
    with pytest.raises(ValueError, match="word: expected positions for each of 8 texts, got 7"):
        record(clf.trunk, texts, {"word": some[:-1]}, tmp_path, CPU)
    for wrong in ([0, 7], [-1]):
        some[4] = np.array(wrong)
        with pytest.raises(ValueError, match=r"word: expected positions 0 \.\. 6 in text 4, got"):
            record(clf.trunk, texts, {"word": some}, tmp_path, CPU)


def test_a_folder_without_room_is_refused_before_anything_is_written(clf, texts, tmp_path, monkeypatch):
    needed = len(texts) * (3 * L + 1) * C * 4  # bytes
    for free in (needed, needed - 1):
        monkeypatch.setattr(activations.shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        if free == needed:
            record(clf.trunk, texts, {"fits": None}, tmp_path, CPU)
        else:
            with pytest.raises(InputError, match=r"GiB of free space .* make room, or take fewer texts"):
                record(clf.trunk, texts, {"mean": None}, tmp_path, CPU)
    assert not list(tmp_path.glob("mean*"))


def test_the_message_gives_the_missing_room_in_gib(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(activations.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * 2**29))
    rows = 2**20 * 3  # of 10 layers of 35 numbers of 4 bytes
    with pytest.raises(InputError, match=r"expected 4\.1 GiB of free space for activations, got 1\.5"):
        activations._create_files(tiny, {"mean": rows}, tmp_path)
