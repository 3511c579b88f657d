"""The maps of patching that `verify.py` measures, on a small random network whose maps hooks in `transformers` record,
and those that are shipped."""

import copy
import json

import pytest
import torch
from commands import exit_code
from hooked import Pair, patch

import verify
from experiments.patch.published import read_maps
from lab.progress import console
from model import GPT2Config, Tokenizer
from model.names import EMBEDDED

L, H = 2, 3
STEP = 1e-4  # of the way from corrupt to clean, for slopes in fp64
PROMPTS = [
    ["When John and Mary met, John gave it to", " Mary", " John"],
    ["When John and Mary met, Mary gave it to", " John", " Mary"],
    ["After Dan and Sid met, Sid gave it to", " Dan", " Sid"],
    ["After Dan and Sid met, Dan gave it to", " Sid", " Dan"],
]
KINDS = [("resid_pre", True), ("attn", True), ("mlp", True), ("z", True)]
KINDS += [(kind, False) for kind in ("z", "q", "k", "v", "pattern")]
TOKENIZER = Tokenizer.load("gpt2-mini")
SHIPPED = json.loads(verify.MAPS.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def network(reference):
    return reference("GPT2LMHeadModel", seed=9, n_layer=L, n_head=H, n_embd=15, vocab_size=50257)  # a large gap


@pytest.fixture(scope="module")
def file(network):
    """Maps like those that are shipped, in millionths, which leave rounding its place."""
    import transformers

    maps = record_maps(copy.deepcopy(network.hf).double(), transformers.GPT2Tokenizer.from_pretrained(EMBEDDED))
    return {"source": "here", "unit": 1e-6, "tolerance": 1e-4, "prompts": PROMPTS, "maps": maps}


def record_maps(hf, tokenizer):
    """Each text's neighbour is its corrupt text: one activation at a time, and slopes towards it by finite differences.
    In integers: millionths of the gap."""
    ids = [[50256, *tokenizer.encode(text)] for text, _, _ in PROMPTS]
    answers = [tuple(tokenizer.encode(answer)[0] for answer in words) for _, *words in PROMPTS]
    pairs = [Pair(hf, ids[i ^ 1], ids[i], answers[i]) for i in range(len(PROMPTS))]
    gap = sum(patch(pair, "resid_pre", 0, None)[-1] - pair.read() for pair in pairs)  # the whole text is the other
    assert abs(gap) > 1
    maps = []
    for kind, by_position in KINDS:
        places = [(layer, head) for layer in range(L) for head in (range(H) if kind in "z q k v pattern" else [None])]
        patched = sum(torch.stack([patch(pair, kind, *place) - pair.read() for place in places]) for pair in pairs)
        up, down = (
            sum(torch.stack([patch(pair, kind, *place, sign * STEP) for place in places]) for pair in pairs)
            for sign in (1, -1)
        )
        entry = {"kind": kind, "by_position": by_position}
        for method, effects in (("patched", patched), ("estimated", (up - down) / (2 * STEP))):
            values = (effects / gap * 1e6).round().long().unflatten(0, (L, -1))  # (L, H or 1, T + 1), all together last
            values = values[..., :-1] if by_position else values[..., -1]
            entry[method] = (values.squeeze(1) if len(places) == L else values).tolist()
        maps.append(entry)
    return maps


@pytest.fixture
def check(network, tmp_path, monkeypatch, capsys):
    """check(file): the lines of the table, and how many facts hold."""
    monkeypatch.setattr(console, "width", 100)

    def check(file):
        path = tmp_path / "maps.json"
        path.write_text(json.dumps(file))
        table, held = verify.check(network.ours, TOKENIZER, read_maps(path))
        console.print(table)
        return [line for line in capsys.readouterr().out.splitlines() if line.rstrip().endswith(("ok", "MISS"))], held

    return check


def test_maps_that_transformers_recorded_hold(file, check):
    lines, held = check(file)
    assert held == len(lines) == 18 == 2 * len(KINDS)


CHANGES = [  # which map, the place in it, and how the table names the two
    (0, "patched", (1, 7), "patched: resid_pre by position", "[1,7]"),
    (3, "estimated", (1, 2, 9), "estimated: z by head, position", "[1,2,9]"),
    (5, "estimated", (0, 2), "estimated: q by head", "[0,2]"),
    (8, "patched", (1, 0), "patched: pattern by head", "[1,0]"),
]


@pytest.mark.parametrize(("entry", "method", "place", "name", "shown"), CHANGES)
def test_a_number_off_by_twice_its_tolerance_is_missed(file, check, entry, method, place, name, shown):
    wrong = copy.deepcopy(file)
    row = wrong["maps"][entry][method]
    for index in place[:-1]:
        row = row[index]
    row[place[-1]] += 200
    lines, held = check(wrong)
    assert held == 17
    (missed,) = [line for line in lines if line.rstrip().endswith("MISS")]
    assert missed.strip().startswith(name)
    assert missed.count(shown) == 2


def test_the_maps_of_another_network_are_missed(file, check, network, monkeypatch):
    """The keys of one head a tenth larger, which the numbers by head and position all see."""
    D = network.ours.config.head_width
    weight = network.ours.trunk.h[1].attn.c_attn.weight
    changed = weight.data.clone()
    changed[(H + 1) * D : (H + 2) * D] *= 1.1
    monkeypatch.setattr(weight, "data", changed)
    assert check(file)[1] < 6


def test_the_command_reads_facts_and_maps(file, network, tmp_path, monkeypatch, capsys):
    for name, content in (("FACTS", []), ("MAPS", file | {"maps": file["maps"][:2]})):
        (tmp_path / name).write_text(json.dumps(content))
        monkeypatch.setattr(verify, name, tmp_path / name)
    monkeypatch.setattr(verify, "read_config", lambda folder, dropout: GPT2Config.preset("gpt2"))
    monkeypatch.setattr(verify, "load_lm", lambda folder: network.ours)
    assert exit_code(monkeypatch, verify, "--model", str(EMBEDDED), "--device", "cpu") == 0
    assert "4 of 4 facts hold on cpu in fp32" in capsys.readouterr().out


# The maps that are shipped.


def shipped(kind, method, *, by_position=False):
    (entry,) = [entry for entry in SHIPPED["maps"] if (entry["kind"], entry["by_position"]) == (kind, by_position)]
    return torch.tensor(entry[method])


@pytest.mark.parametrize("method", ["patched", "estimated"])
def test_shipped_maps_are_whole_and_agree_with_one_another(method):
    assert [(entry["kind"], entry["by_position"]) for entry in SHIPPED["maps"]] == KINDS[:3] + KINDS[4:] + KINDS[3:4]
    tokens = {len(TOKENIZER.encode(text)) + 1 for text, _, _ in SHIPPED["prompts"]}
    assert tokens == {15}
    for kind in ("resid_pre", "attn", "mlp"):
        values = shipped(kind, method, by_position=True)
        assert values.shape == (12, 15)
        assert not values[:, :10].any()  # the second name is token 10
        assert not values[-1, :-1].any() or kind == "resid_pre"
    for kind in ("z", "q", "k", "v", "pattern"):
        assert shipped(kind, method).shape == (12, 12)
    by_position = shipped("z", method, by_position=True)
    assert by_position.shape == (12, 12, 15)
    assert not by_position[..., :10].any()
    if method == "estimated":  # in sums of roundings
        torch.testing.assert_close(by_position.sum(dim=2), shipped("z", method), rtol=0, atol=3)
        attn = shipped("attn", method, by_position=True)
        torch.testing.assert_close(by_position.sum(dim=1), attn, rtol=0, atol=6)


def test_shipped_maps_are_facts(monkeypatch, capsys):
    facts = read_maps(verify.MAPS)
    assert len({fact["fact"] for fact in facts}) == len(facts) == 18
    by_name = {fact["fact"]: fact["expected"] for fact in facts}
    assert by_name["patched: z by head"][10][7] == pytest.approx(-0.480, abs=5e-4)  # as evidence in words has it
    assert by_name["patched: v by head"][8][6] == pytest.approx(0.317, abs=5e-4)
    assert by_name["patched: resid_pre by position"][0][10] == 1
    assert by_name["estimated: z by head"][9][9] == pytest.approx(0.377, abs=5e-4)
    assert {fact["tolerance"] for fact in facts} == {5.5e-4}
    answers = iter(facts)
    monkeypatch.setattr(console, "width", 100)
    monkeypatch.setitem(verify.MEASURES, "patching_map", lambda *_, **__: next(answers)["expected"])
    table, held = verify.check(None, None, facts)
    console.print(table)
    lines = capsys.readouterr().out.splitlines()
    assert held == 18
    assert all(any(name in line for line in lines) for name in by_name)
