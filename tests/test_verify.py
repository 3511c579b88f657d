"""`verify.py` without the official weights: on a random network of their shape, whose facts `transformers` records.

The recorder shares nothing with verify.py: HF's model, tokenizer and greedy search, hooks, weights as [in, out]. To
close a head it folds the head's value bias into c_proj's bias, literally as the sources did, and sets z to 0.
"""

import inspect
import json
import math
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from commands import exit_code, one_line
from conftest import randomise
from torch import Tensor
from torch.nn import functional as F

import model.gpt2
import model.names
import verify
from lab.progress import console
from model import GPT2LM, GPT2Config, Tokenizer, Trace, load_lm, masks
from model.layouts import config_to_hf
from model.names import EMBEDDED

C, D = 768, 64
BOS = 50256
PROMPTS = [
    ["When John and Mary met, John gave it to", " Mary", " John"],
    ["When John and Mary met, Mary gave it to", " John", " Mary"],
    ["After Dan and Sid met, Sid gave it to", " Dan", " Sid"],
]
SHIPPED = json.loads(verify.FACTS.read_text(encoding="utf-8"))
TOKENIZER = Tokenizer.load("gpt2-mini")
TEXT = "Attention is all you need, they said, and closed a head."


class StandIn(NamedTuple):
    """A random network of the official shape: HF's, ours from the same folder, and the facts that HF recorded."""

    hf: Any
    lm: GPT2LM
    folder: str
    facts: list[dict[str, Any]]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory) -> Iterator[StandIn]:
    import transformers

    # At HF's usual 0.02 all tokens are about equally likely, attention is flat, and a mistake hardly moves a fact. At
    # 0.1 the logits spread by about 3, so that the likeliest token is no tie, and attention prefers some keys; rounding
    # stays below a tenth of the tolerances (test_parity.py looks at it layer by layer).
    torch.manual_seed(0)
    hf: Any = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(initializer_range=0.1, attn_implementation="eager")
    ).eval()
    randomise(hf)
    folder = tmp_path_factory.mktemp("stand-in")
    hf.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(EMBEDDED / name, folder)
    with torch.no_grad():
        facts = record(hf, transformers.GPT2Tokenizer.from_pretrained(folder))
    yield StandIn(hf, load_lm(folder), str(folder), facts)
    shutil.rmtree(folder)  # 0.5 GB


# The recorder.


def record(hf: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """Facts for every measure, within 1e-3 of each number and of one nat; rounding stays far below that."""
    facts = []

    def add(measure: str, expected: Any, tolerance: float | None = None, **inputs: Any) -> None:
        tolerance = 1e-3 * min(1, abs(expected)) if tolerance is None else tolerance
        name = f"fact {len(facts)}: {measure}"
        facts.append(dict(fact=name, measure=measure, inputs=inputs, expected=expected, tolerance=tolerance))

    add("parameters", sum(p.numel() for p in hf.parameters()), 0)
    for text, new in (("The dog", 6), ("Today, I", 3)):
        add("continuation", greedy(hf, tokenizer, text, new), 0, text=text, new_tokens=new)
    ids = torch.tensor([[BOS, *tokenizer.encode(TEXT)]])
    add("loss", hf(ids[:, 1:], labels=ids[:, 1:]).loss.item(), text=TEXT, bos=False)
    add("loss", hf(ids, labels=ids).loss.item(), text=TEXT, bos=True)
    with folded(hf, 0, 8), zeroed(hf, 0, 8, slice(None)):
        add("loss", hf(ids, labels=ids).loss.item(), text=TEXT, bos=True, without=[0, 8])
    likely = next(i for i in hf(ids).logits[0, -1].argsort(descending=True) if tokenizer.decode(i).isascii())
    answer = tokenizer.decode(likely)
    add("probability", hf(ids).logits[0, -1].softmax(-1)[likely].item(), text=TEXT, answer=answer)
    for prompts in (PROMPTS[:1], PROMPTS):
        add("logit_difference", logit_difference(hf, tokenizer, prompts), prompts=prompts)
    with folded(hf, 9, 9), zeroed(hf, 9, 9, slice(-1, None)):
        add("logit_difference", logit_difference(hf, tokenizer, PROMPTS), prompts=PROMPTS, without=[9, 9])
    for layer, head, bos in ((0, 4, True), (0, 11, False), (6, 9, True)):
        row = hf(ids[:, 1 - bos :], output_attentions=True).attentions[layer][0, head, 7, :8].tolist()
        add("attention_row", row, 1e-4, text=TEXT, bos=bos, head=[layer, head], query=7)
    torch.manual_seed(0)
    repeated = torch.randint(100, 20000, (2, 100)).tile(2)
    attentions = hf.transformer(repeated, output_attentions=True).attentions
    for layer, head, back in ((0, 5, 1), (1, 3, 99), (0, 1, 100)):
        looks_back = [attentions[layer][:, head, q, q - back] for q in range(back, 200)]
        add("repetition_score", torch.stack(looks_back).mean().item(), head=[layer, head], back=back)
    for layer, head in ((9, 9), (11, 10), (3, 0)):
        add("direct_effect", direct_effect(hf, tokenizer, layer, head), prompts=PROMPTS, head=[layer, head])
    return facts


def greedy(hf: Any, tokenizer: Any, text: str, new: int) -> str:
    ids = tokenizer(text, return_tensors="pt")
    written = hf.generate(**ids, max_new_tokens=new, do_sample=False, eos_token_id=None, pad_token_id=BOS)
    return tokenizer.decode(written[0, ids["input_ids"].shape[1] :], clean_up_tokenization_spaces=False)


def prompt_ids(tokenizer: Any, prompts: list[list[str]]) -> tuple[Tensor, Tensor, Tensor]:
    """ids (B, T), and the right and wrong answers (B,)."""
    ids = torch.tensor([[BOS, *tokenizer.encode(text)] for text, _, _ in prompts])
    return ids, *(torch.tensor([tokenizer.encode(prompt[i])[0] for prompt in prompts]) for i in (1, 2))


def logit_difference(hf: Any, tokenizer: Any, prompts: list[list[str]]) -> float:
    ids, right, wrong = prompt_ids(tokenizer, prompts)
    logits, rows = hf(ids).logits[:, -1], torch.arange(len(ids))
    return (logits[rows, right] - logits[rows, wrong]).mean().item()


def direct_effect(hf: Any, tokenizer: Any, layer: int, head: int) -> float:
    """The logit difference of the final residual stream, less that of the stream without what the head wrote."""
    ids, right, wrong = prompt_ids(tokenizer, PROMPTS)
    seen = {}
    projection, ln_f = hf.transformer.h[layer].attn.c_proj, hf.transformer.ln_f
    hooks = [
        module.register_forward_pre_hook(lambda module, args: seen.update({module: args[0][:, -1].clone()}))
        for module in (projection, ln_f)
    ]
    with folded(hf, layer, head):
        hf(ids)
    for hook in hooks:
        hook.remove()
    own = slice(head * D, (head + 1) * D)
    final = seen[ln_f]
    cut = final - seen[projection][:, own] @ projection.weight[own]
    scale = (final.var(dim=1, correction=0, keepdim=True) + 1e-5).sqrt()  # also of the stream that was cut
    rows, differences = torch.arange(len(ids)), []
    for stream in (final, cut):
        logits = ((stream - stream.mean(dim=1, keepdim=True)) / scale * ln_f.weight + ln_f.bias) @ hf.lm_head.weight.T
        differences.append(logits[rows, right] - logits[rows, wrong])
    return (differences[0] - differences[1]).mean().item()


@contextmanager
def folded(hf: Any, layer: int, head: int) -> Iterator[None]:
    """The same function in other weights: no text-independent part in the head's values, c_proj's bias adds it."""
    attn, ln_1 = hf.transformer.h[layer].attn, hf.transformer.h[layer].ln_1
    values, own = slice(2 * C + head * D, 2 * C + (head + 1) * D), slice(head * D, (head + 1) * D)
    before = attn.c_attn.bias.clone(), attn.c_proj.bias.clone()
    constant = attn.c_attn.bias[values] + ln_1.bias @ attn.c_attn.weight[:, values]
    attn.c_attn.bias[values] -= constant
    attn.c_proj.bias += constant @ attn.c_proj.weight[own]
    try:
        yield
    finally:
        attn.c_attn.bias.copy_(before[0])
        attn.c_proj.bias.copy_(before[1])


@contextmanager
def zeroed(hf: Any, layer: int, head: int, at: slice) -> Iterator[None]:
    """z = 0 for one head at some positions, in the weights as they are."""

    def zero(module: torch.nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        z = args[0].clone()
        z[:, at, head * D : (head + 1) * D] = 0
        return (z,)

    hook = hf.transformer.h[layer].attn.c_proj.register_forward_pre_hook(zero)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.slow
@torch.no_grad()
def test_folding_changes_weights_but_no_logits(stand_in):
    ids = torch.arange(1000, 1011)[None]
    plain = stand_in.hf(ids).logits
    with folded(stand_in.hf, 4, 7):
        torch.testing.assert_close(stand_in.hf(ids).logits, plain, rtol=0, atol=1e-3)
        with zeroed(stand_in.hf, 4, 7, slice(None)):
            assert (stand_in.hf(ids).logits - plain).abs().max() > 0.1
    assert torch.equal(stand_in.hf(ids).logits, plain)


# The command, on these facts.


@pytest.fixture
def run(stand_in, tmp_path, monkeypatch, capsys):
    """run(facts): exit code and missed facts of `python verify.py` on facts, with the network as it is in memory."""
    monkeypatch.setattr(verify, "FACTS", tmp_path / "facts.json")
    monkeypatch.setattr(verify, "read_maps", lambda path: [])  # test_verify_maps.py has a smaller network for them
    monkeypatch.setattr(verify, "load_lm", lambda folder: stand_in.lm)
    monkeypatch.setattr(console, "width", 100)

    def run(facts):
        verify.FACTS.write_text(json.dumps(facts))
        code = exit_code(monkeypatch, verify, "--model", stand_in.folder, "--device", "cpu")
        out = capsys.readouterr().out
        missed = [line for line in out.splitlines() if line.rstrip().endswith("MISS")]
        assert f"{len(facts) - len(missed)} of {len(facts)} facts hold on cpu in fp32; loaded in " in out
        return code, {fact["fact"] for fact in facts if any(fact["fact"] in line for line in missed)}, out

    return run


@pytest.mark.slow
def test_what_transformers_recorded_holds(stand_in, run, monkeypatch):
    monkeypatch.setattr(verify, "load_lm", load_lm)  # from the folder to the exit code
    code, missed, out = run(stand_in.facts)
    assert (code, missed) == (0, set())
    row = re.search(r"fact 4: loss +(\S+) +(\S+) +(\S+) +(\S+) +ok", out)
    assert [float(cell) for cell in row.groups()] == pytest.approx(
        [stand_in.facts[4]["expected"]] * 2 + [0, 1e-3], abs=1e-4
    )


@pytest.mark.slow
def test_the_facts_here_cover_every_measure(stand_in):
    shipped = {fact["measure"] for fact in SHIPPED}
    assert {fact["measure"] for fact in stand_in.facts} == shipped == {measure.__name__ for measure in verify.TOUR}
    assert len(set(stand_in.facts[1]["expected"].split())) > 2  # one token over and over would prove little


def off_by(factor, fact):
    """The fact with a number, one entry of a list, or a character of a text that is not what was recorded."""
    expected, off = fact["expected"], factor * fact["tolerance"]
    if isinstance(expected, str):
        return fact | {"expected": expected[:-1] + "~"}
    if isinstance(expected, list):
        return fact | {"expected": [*expected[:3], expected[3] - off, *expected[4:]]}
    return fact | {"expected": expected + (off or 1)}


@pytest.mark.slow
@pytest.mark.parametrize("measure", [measure.__name__ for measure in verify.TOUR])
def test_a_number_off_by_twice_its_tolerance_is_missed(stand_in, run, measure):
    fact = next(fact for fact in stand_in.facts if fact["measure"] == measure)
    code, missed, _ = run([off_by(2, fact)])
    assert (code, missed) == (1, {fact["fact"]})


@pytest.mark.slow
def test_half_the_tolerance_is_within(stand_in, run):
    facts = [off_by(0.5, fact) for fact in stand_in.facts if fact["tolerance"]]
    assert run(facts)[:2] == (0, set())


# Mistakes in the network are noticed, and only by what lies behind them.


@contextmanager
def louder(lm: GPT2LM, layer: int, head: int, part: str) -> Iterator[None]:
    """One head's values, or what it writes to the residual stream, times 1.1."""
    attn: Any = lm.trunk.h[layer].attn
    own = slice(head * D, (head + 1) * D)
    weight = attn.c_attn.weight.data[2 * C :][own] if part == "values" else attn.c_proj.weight.data[:, own]
    before = weight.clone()
    weight *= 1.1
    try:
        yield
    finally:
        weight.copy_(before)


HEADS = [(0, 8, "values"), (5, 5, "output"), (11, 10, "values")]


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "head", "part"), HEADS)
def test_a_louder_head_is_noticed(stand_in, run, layer, head, part):
    with louder(stand_in.lm, layer, head, part):
        code, missed, _ = run(stand_in.facts)
    assert code == 1
    for fact in stand_in.facts:
        at = tuple(fact["inputs"].get("head", ()))
        if fact["measure"] in ("loss", "probability", "logit_difference") and "without" not in fact["inputs"]:
            assert fact["fact"] in missed
        elif fact["measure"] in ("attention_row", "repetition_score"):
            assert (fact["fact"] in missed) == (at[0] > layer)
        elif fact["measure"] == "direct_effect" and (at[0] > layer or at == (layer, head)):
            assert fact["fact"] in missed
        elif fact["measure"] == "parameters":
            assert fact["fact"] not in missed


@pytest.mark.slow
def test_the_other_gelu_is_noticed(stand_in, run, monkeypatch):
    """The erf form differs from the tanh form by less than 5e-4 in each neuron."""
    monkeypatch.setattr(model.gpt2, "linear_gelu", lambda linear, x: F.gelu(linear(x)))
    assert run(stand_in.facts)[0] == 1


@pytest.mark.slow
def test_an_untied_output_layer_is_noticed(stand_in, run, monkeypatch):
    monkeypatch.setattr(stand_in.lm, "lm_head", torch.nn.Linear(2, 3), raising=False)
    assert run(stand_in.facts[:1])[0] == 1


@pytest.mark.slow
@torch.inference_mode()
def test_a_plain_zero_is_another_ablation(stand_in):
    """The trap of published ablations: z = 0 in folded weights is not z = 0 in the weights as they come."""
    lm, tokenizer = stand_in.lm, TOKENIZER
    ids = verify.encoded(lm, tokenizer, TEXT)
    plain = F.cross_entropy(lm(ids, head_gate=masks.close_heads(lm.config, [(0, 8)]))[0, :-1], ids[0, 1:]).item()
    with zeroed(stand_in.hf, 0, 8, slice(None)):
        assert plain == pytest.approx(stand_in.hf(ids, labels=ids).loss.item(), abs=1e-4)
    filled = verify.loss(lm, tokenizer, TEXT, bos=True, without=(0, 8))
    assert abs(plain - filled) > 0.01


@torch.inference_mode()
def test_direct_effects_add_up(reference):
    """All heads, their constant parts, the MLPs, the embeddings and ln_f's bias make the logit difference."""
    lm, tokenizer, prompt = reference("GPT2LMHeadModel", vocab_size=50257).ours, TOKENIZER, PROMPTS[:1]
    L, H, ln_f = lm.config.n_layer, lm.config.n_head, lm.trunk.ln_f
    by_heads = sum(verify.direct_effect(lm, tokenizer, prompt, (layer, h)) for layer in range(L) for h in range(H))
    ids, answers = verify.encoded_prompts(lm, tokenizer, prompt)
    trace = Trace("resid_pre", "mlp")
    lm.trunk(ids, trace=trace)
    rest = trace.resid_pre[0][0, -1] + sum(mlp[0, -1] for mlp in trace.mlp)  # (C,)
    for layer, block in enumerate(lm.trunk.h):
        rest = rest + block.attn.c_proj(torch.cat([verify.constant(lm, (layer, h)) for h in range(H)]))
    scale = (trace.resid_pre[-1][0, -1].var(correction=0) + ln_f.eps).sqrt()
    right, wrong = lm.trunk.wte.weight[answers[0]]
    by_rest = (((rest - rest.mean()) / scale * ln_f.weight + ln_f.bias) @ (right - wrong)).item()
    assert by_heads + by_rest == pytest.approx(verify.logit_difference(lm, tokenizer, prompt), abs=1e-4)
    assert abs(by_heads) > 0.1


# The cells of the table.


def test_texts_are_shown_from_where_they_part():
    assert verify.compare("a b", "a b", 0) == (True, ["a b", "a b", "none"])
    assert verify.compare("one two\nthree", "one two four", 0) == (False, ["… four", "…\\nthree", "at char 7"])
    long = "a" * 7, "a" * 7 + "b" * 99
    assert verify.compare(*long, 0) == (False, ["…" + "b" * 15, "…", "at char 7"])
    assert verify.compare("one", "one two", 0) == (False, ["… two", "…", "at char 3"])


def test_lists_are_shown_at_their_worst_entry():
    assert verify.compare([0.5, 0.3, 0.2], [0.5, 0.2, 0.3], 0.2) == (True, ["0.20000 [1]", "0.30000 [1]", "1.0e-01"])
    assert verify.compare([math.inf, 0.5], [0.5, 0.5], 1e9) == (False, ["0.50000 [0]", "inf [0]", "inf"])
    assert verify.compare([0.5, math.nan], [0.5, 0.5], 1e9) == (False, ["0.50000 [1]", "nan [1]", "nan"])
    maps = [[0.0, 0.0, 0.0], [0.0, 0.0, -0.25]], [[0.0, 0.0, 0.0], [0.125, 0.0, 0.0]]
    assert verify.compare(*maps, 0.2) == (False, ["0.00000 [1,2]", "-0.25000 [1,2]", "2.5e-01"])
    assert verify.compare(math.nan, 0.5, 1e9) == (False, ["0.50000", "nan", "nan"])
    assert verify.compare(124_439_809, 124_439_808, 0) == (False, ["124,439,808", "124,439,809", "1.0e+00"])


# What ends in exit code 2.


def test_another_shape_and_a_folder_without_weights_are_the_users_mistakes(tmp_path, monkeypatch, capsys):
    assert exit_code(monkeypatch, verify, "--model", "gpt2-mini") == 2
    assert "124M" in one_line(capsys)
    assert exit_code(monkeypatch, verify, "--model", str(tmp_path)) == 2
    assert "config.json" in one_line(capsys)
    (tmp_path / "config.json").write_text(json.dumps(config_to_hf(GPT2Config.preset("gpt2"))))
    assert exit_code(monkeypatch, verify, "--model", str(tmp_path)) == 2
    assert "model.safetensors" in one_line(capsys)


@pytest.mark.slow
def test_the_weights_are_fetched_from_the_hub_and_must_be_the_official_ones(
    stand_in, hub, tmp_path, monkeypatch, capsys
):
    hub.repositories["model", "openai-community/gpt2"] = Path(stand_in.folder)
    hub.commits["openai-community/gpt2"] = model.names.HUB["gpt2"][1]
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps([fact for fact in stand_in.facts if fact["measure"] == "loss"]))
    monkeypatch.setattr(verify, "FACTS", facts)
    monkeypatch.setattr(verify, "read_maps", lambda path: [])
    assert exit_code(monkeypatch, verify) == 2
    expected = f"expected SHA-256 {model.names.OFFICIAL['model.safetensors'][1]}, got "
    assert expected in capsys.readouterr().err
    monkeypatch.setattr(model.names, "OFFICIAL", {})
    assert exit_code(monkeypatch, verify) == 0
    assert hub.sent["model.safetensors"] == (Path(stand_in.folder) / "model.safetensors").stat().st_size
    assert "3 of 3 facts hold" in capsys.readouterr().out


# The facts that are shipped.


@pytest.mark.parametrize("fact", SHIPPED, ids=lambda fact: fact["fact"])
def test_shipped_facts_are_well_formed(fact):
    assert fact.keys() == {"fact", "measure", "inputs", "expected", "tolerance", "source"}
    assert len(fact["source"]) > 10
    inputs, expected = fact["inputs"], fact["expected"]
    inspect.signature(verify.MEASURES[fact["measure"]]).bind(None, None, **inputs)
    exact = isinstance(expected, str | int)
    assert fact["tolerance"] == 0 if exact else 0 < fact["tolerance"] < 0.05
    for head in (inputs.get("head"), inputs.get("without")):
        assert head is None or (len(head) == 2 and all(0 <= n < 12 for n in head))
    for answer in [*inputs.get("prompts", []), ["", inputs.get("answer", " a"), " a"]]:
        assert [len(TOKENIZER.encode(token)) for token in answer[1:]] == [1, 1]
    assert len({len(TOKENIZER.encode(text)) for text, _, _ in inputs.get("prompts", [])}) <= 1
    if fact["measure"] == "attention_row":
        assert len(expected) == inputs["query"] + 1 <= len(TOKENIZER.encode(inputs["text"])) + inputs["bos"]
        assert sum(expected) == pytest.approx(1, abs=2e-5)
    if fact["measure"] == "continuation":
        assert len(TOKENIZER.encode(expected)) == inputs["new_tokens"]


def test_shipped_facts_agree_with_one_another():
    assert len({fact["fact"] for fact in SHIPPED}) == len(SHIPPED)
    means = [fact for fact in SHIPPED if len(fact["inputs"].get("prompts", [])) > 1]
    assert len({json.dumps(fact["inputs"]["prompts"]) for fact in means}) == 1
    mean = next(fact for fact in means if fact["measure"] == "logit_difference")
    singles = {
        json.dumps(fact["inputs"]["prompts"]): fact["expected"]
        for fact in SHIPPED
        if len(fact["inputs"].get("prompts", [])) == 1
    }
    values = [singles[json.dumps([prompt])] for prompt in mean["inputs"]["prompts"]]
    assert sum(values) / len(values) == pytest.approx(mean["expected"], abs=5e-4)


@pytest.mark.slow
def test_the_shipped_table_is_readable(run, monkeypatch):
    replayed = iter(SHIPPED)
    answers = dict.fromkeys(verify.MEASURES, lambda *_, **__: next(replayed)["expected"])
    monkeypatch.setattr(verify, "MEASURES", answers)
    code, missed, out = run([SHIPPED[0] | {"expected": 0}, *SHIPPED[1:]])
    assert (code, missed) == (1, {SHIPPED[0]["fact"]})
    assert all(any(fact["fact"] in line for line in out.splitlines()) for fact in SHIPPED)
    assert max(map(len, out.splitlines())) <= 100
