"""GPT-Neo: the same numbers as `transformers`, and, independently of it, those of a GPT-2 with folded weights."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from parity import check_parity
from safetensors.torch import load_file, save_file
from tiny import CASES, SHAPES, C, D, L, case, difference, real, set_config, texts

from model import GPT2LM, GPT2Classifier, GPT2Config, InputError, Trace, load_classifier, load_lm, masks, save
from model.layouts import config_from_hf, config_to_hf

WINDOW, LOCAL = 5, 1  # of `tiny_neo`: the window, and the layer that has it
AROUND = [(WINDOW - 1,), (WINDOW,), (WINDOW + 1,), (3 * WINDOW,)]  # lengths


@pytest.fixture
def lm(neo_lm_reference) -> GPT2LM:
    """A GPT-Neo with random weights that a test may change."""
    return load_lm(neo_lm_reference.folder)


@pytest.fixture
def clf(neo_clf_reference) -> GPT2Classifier:
    return load_classifier(neo_clf_reference.folder)


@pytest.mark.parametrize("kind", ["neo_lm_reference", "neo_clf_reference"])
@pytest.mark.parametrize("lengths", [*AROUND, (1,), (15, 4, 6), (5, 1, 13)], ids=str)
def test_logits_equal_those_of_transformers(request, kind, lengths):
    hf, ours, _ = request.getfixturevalue(kind)
    check_parity(ours, hf, *texts(*lengths))


@pytest.mark.parametrize(
    "shape",
    [
        dict(num_layers=4, attention_types=[[["global", "local"], 2]], window_size=3),
        dict(num_layers=3, attention_types=[[["local"], 2], [["global"], 1]], window_size=1),
        dict(num_layers=2, attention_types=[[["global"], 2]], hidden_size=22, num_heads=2),
    ],
    ids=str,
)
def test_other_layers_and_windows_equal_transformers(reference, shape):
    hf, ours, _ = reference("GPTNeoForCausalLM", seed=1, **shape)
    check_parity(ours, hf, *texts(11, 7))


def test_greedy_generation_equals_transformers_beyond_the_window(neo_lm_reference):
    hf, ours, _ = neo_lm_reference
    ids, _ = texts(3, 3, 3)
    settings = dict(do_sample=False, eos_token_id=None, pad_token_id=0, max_new_tokens=11)
    expected = hf.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    assert ours.generate(ids, 11).tolist() == expected.tolist()


# Independently: folded into a GPT-2, which scales scores, has biases and sees all keys, with a mask of its own.


def fold(neo: GPT2LM | GPT2Classifier) -> GPT2LM | GPT2Classifier:
    """Return a GPT-2 with the same weights, its q multiplied by what its scores will be divided by."""
    config = replace(neo.config, scale_scores=True, qkv_bias=True, windows=())
    gpt2 = GPT2Classifier(config, neo.labels) if isinstance(neo, GPT2Classifier) else GPT2LM(config)
    assert {*gpt2.load_state_dict(neo.state_dict(), strict=False).missing_keys} == {
        f"trunk.h.{layer}.attn.c_attn.bias" for layer in range(L)
    }  # which are 0
    with torch.no_grad():
        for block in gpt2.trunk.h:
            block.attn.c_attn.weight[:C] *= math.sqrt(D)
    return gpt2.eval()


def window_mask(config: GPT2Config, T: int, window: int = WINDOW) -> torch.Tensor:
    return masks.restrict(masks.band(T, window), config, layers=[LOCAL])


def within_window(config: GPT2Config, arguments: dict) -> dict:
    """Return the arguments with which a folded GPT-Neo is one."""
    mask = window_mask(config, SHAPES["attn_mask"][-1])
    return arguments | {"attn_mask": arguments.get("attn_mask", mask) & mask}


@pytest.mark.parametrize("name", [None, *CASES])
@pytest.mark.parametrize("kind", ["lm", "clf"])
def test_every_argument_acts_as_on_the_folded_network(request, kind, name):
    neo, (ids, lengths) = request.getfixturevalue(kind), texts(11, 7)
    arguments = case(name) if name else {}
    with torch.no_grad():
        got = neo(ids, lengths, **arguments)
        expected = fold(neo)(ids, lengths, **within_window(neo.config, arguments))
    assert difference(got, expected) < 1e-5


def test_everything_recorded_is_that_of_the_folded_network(lm):
    traces = [Trace(*Trace.NAMES), Trace(*Trace.NAMES)]
    ids, lengths = texts(11, 7)
    lm(ids, lengths, trace=traces[0])
    fold(lm)(ids, lengths, trace=traces[1], **within_window(lm.config, {}))
    for name in Trace.NAMES:
        for got, expected in zip(*(getattr(trace, name) for trace in traces), strict=True):
            scale = math.sqrt(D) if name == "q" else 1
            assert difference(scale * got, expected) < 1e-5, name


def test_gradients_reach_every_weight_as_in_the_folded_network(clf):
    ids, lengths = texts(11, 7)
    folded = fold(clf)
    clf.requires_grad_(True)(ids, lengths).logsumexp(-1).sum().backward()
    folded(ids, lengths, **within_window(clf.config, {})).logsumexp(-1).sum().backward()
    for name, parameter in clf.named_parameters():
        got, expected = parameter.grad.clone(), folded.get_parameter(name).grad.clone()
        if name.endswith("c_attn.weight"):
            expected[:C] *= math.sqrt(D)
        assert difference(got, expected) < 1e-4, name


def test_one_query_equals_its_row_at_any_position(clf):
    ids, lengths = texts(15, 9)
    x = clf.trunk.embed(ids, lengths)
    with torch.no_grad():
        whole = clf.trunk.run(x, 0, LOCAL + 1)
        for query in [(0, 0), (4, 5), (6, 8), (14, 3)]:
            got = clf.trunk.run(x, 0, LOCAL + 1, query=torch.tensor(query))[:, 0]
            assert difference(got, whole[torch.arange(2), torch.tensor(query)]) < 1e-5


@pytest.mark.parametrize("P", [2, WINDOW, 11])
def test_what_follows_known_tokens_is_as_if_all_ran_at_once(lm, P):
    ids, past = texts(15, 15, seed=3)[0], Trace("k", "v")
    ids[1, :P] = ids[0, :P]
    with torch.no_grad():
        whole = lm(ids)
        lm(ids[:1, :P], trace=past)
        got = lm.read(lm.trunk.norm(lm.trunk.run(lm.trunk.embed(ids[:, P:], first=P), past=past)))
    assert difference(got, whole[:, P:]) < 1e-5


def test_closing_a_head_equals_removing_its_weights_in_transformers(neo_clf_reference):
    hf, ours, folder = neo_clf_reference
    cut = type(hf).from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        cut.transformer.h[1].attn.attention.out_proj.weight[:, 2 * D : 3 * D] = 0
        ids, lengths = texts(15, 6)
        expected = cut(ids, attention_mask=real(ids, lengths).long()).logits
        got = ours(ids, lengths, head_gate=masks.close_heads(ours.config, [(1, 2)]))
    assert difference(got, expected) < 1e-5
    assert difference(ours(ids, lengths), expected) > 1e-3


def test_scores_stay_in_fp32_under_autocast(lm):
    trace, (ids, lengths) = Trace("q", "k", "scores", "weights"), texts(15, 6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = lm(ids, lengths, trace=trace)
    for q, k, scores in zip(trace.q, trace.k, trace.scores, strict=True):
        assert (q.dtype, scores.dtype) == (torch.bfloat16, torch.float32)
        expected = q.double() @ k.double().mT
        assert difference(scores.double(), expected) < 1e-6
        assert difference(expected.bfloat16().double(), expected) > 1e-4  # 16 bits would not do
    assert logits.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "trace", [Trace("q", "k", "v", "z"), Trace("q", "k", "v", "z", "weights")], ids=["fused", "explicit"]
)
def test_both_paths_weigh_by_fp32_scores_under_autocast(lm, trace):
    with torch.no_grad():
        lm.trunk.h[LOCAL].attn.c_attn.weight[: 2 * C] *= 2  # scores so large that 16 bits would be felt
    ids, _ = texts(15, 15)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        lm(ids, trace=trace)
    q, k, v, z = (getattr(trace, name)[LOCAL].double() for name in ("q", "k", "v", "z"))
    outside = ~masks.band(15, WINDOW)[0, 0]
    exact, rounded = (
        scores.masked_fill(outside, -torch.inf).softmax(-1) @ v for scores in (q @ k.mT, (q @ k.mT).bfloat16().double())
    )
    assert difference(z, exact) < 0.005 < difference(rounded, exact)


# Mutants.


def shift_window(by: int):
    def mutate(neo):
        neo.trunk.h[LOCAL].attn.window += by

    return mutate


def see_everything(neo):
    neo.trunk.h[LOCAL].attn.window = neo.config.n_ctx


def make_even_layers_local(neo):
    for layer, block in enumerate(neo.trunk.h):
        block.attn.window = neo.config.n_ctx if layer % 2 else WINDOW


def scale_scores(neo):
    neo.trunk.h[LOCAL].attn.scale = 1 / math.sqrt(D)


def swap_keys_and_values(neo):
    weight = neo.trunk.h[2].attn.c_attn.weight
    weight.copy_(torch.cat([weight[:C], weight[2 * C :], weight[C : 2 * C]]))


MUTANTS = {
    "a window too narrow by one": (shift_window(-1), "block 1"),
    "a window too wide by one": (shift_window(1), "block 1"),
    "no window": (see_everything, "block 1"),
    "even layers in place of odd ones": (make_even_layers_local, "block 0"),
    "scaled scores": (scale_scores, "block 1"),
    "keys in place of values": (swap_keys_and_values, "block 2 or ln_f"),
}


@pytest.mark.parametrize("kind", ["lm", "clf"])
@pytest.mark.parametrize("name", MUTANTS)
def test_parity_notices_and_locates(request, kind, name):
    mutate, place = MUTANTS[name]
    neo, hf = request.getfixturevalue(kind), request.getfixturevalue(f"neo_{kind}_reference").hf
    with torch.no_grad():
        mutate(neo)
    with pytest.raises(AssertionError, match=f"first in {place}$"):
        check_parity(neo, hf, *texts(15, 6))


@pytest.mark.parametrize("change", [dict(window=WINDOW - 1), dict(window=WINDOW + 1), dict(scale=1.0), dict(layer=0)])
def test_the_folded_network_notices_too(lm, change):
    ids, _ = texts(11)
    mask = masks.restrict(masks.band(11, change.get("window", WINDOW)), lm.config, layers=[change.get("layer", LOCAL)])
    folded = fold(lm)
    with torch.no_grad():
        folded.trunk.h[0].attn.c_attn.weight[:C] /= math.sqrt(D) if "scale" in change else 1
        assert difference(lm(ids), folded(ids, attn_mask=mask)) > 1e-3


def test_a_text_within_the_window_needs_none(lm):
    ids, _ = texts(WINDOW, WINDOW)
    with torch.no_grad():
        got, expected = lm(ids), fold(lm)(ids)
    assert difference(got, expected) < 1e-5


# Checkpoints.


@pytest.mark.parametrize("kind", ["neo_lm_reference", "neo_clf_reference"])
def test_what_is_saved_opens_in_transformers_with_the_same_logits(request, kind, tmp_path):
    hf, ours, folder = request.getfixturevalue(kind)
    save(ours, tmp_path)
    opened = type(hf).from_pretrained(tmp_path, attn_implementation="eager").eval()
    opened.config.pad_token_id = 0  # ours is that of the published vocabulary
    check_parity(ours, opened, *texts(15, 6))
    theirs, again = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert theirs.keys() == again.keys()
    assert all(torch.equal(theirs[key], again[key]) for key in theirs)
    assert opened.config.attention_layers == ["global", "local", "global"]


@pytest.fixture
def copied(neo_lm_reference, tmp_path) -> Path:
    for path in neo_lm_reference.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def test_the_masks_that_old_files_carry_are_left_out(copied, neo_lm_reference):
    masks_ = {f"transformer.h.{i}.attn.attention.bias": torch.ones(1, 1, 17, 17, dtype=torch.uint8) for i in range(L)}
    masks_ |= {f"transformer.h.{i}.attn.attention.masked_bias": torch.tensor(-1e9) for i in range(L)}
    rewrite(copied, lambda tensors: tensors | masks_)
    assert torch.equal(load_lm(copied)(texts(7)[0]), neo_lm_reference.ours(texts(7)[0]))


def test_missing_and_misshapen_tensors_are_named_as_the_file_names_them(copied):
    def change(tensors):
        del tensors["transformer.h.1.attn.attention.k_proj.weight"]
        tensors["transformer.h.2.attn.attention.v_proj.weight"] = torch.ones(C, C + 1)
        return tensors

    rewrite(copied, change)
    message = rf"missing: h\.1\.attn\.attention\.k_proj\.weight; wrong shape: .*v_proj.weight expected \({C}, {C}\) got"
    with pytest.raises(InputError, match=message):
        load_lm(copied)


REFUSED = {
    "intermediate_size = 70": dict(intermediate_size=70),
    "activation_function = 'relu'": dict(activation_function="relu"),
    "resid_dropout = 0.3": dict(resid_dropout=0.3),
    'attention_types: expected "global" or "local" for each of 3 layers, got .*sparse': dict(
        attention_types=[[["global", "sparse", "local"], 1]]
    ),
    "attention_types: expected .* for each of 3 layers, got": dict(attention_types=[[["global", "local"], 2]]),
    "attention_types: expected .* for each of 3": dict(attention_types=["global", "local", "global"]),
    "attention_types: expected .* for each of": dict(attention_types=[[[["global"]], 3]]),
    "attention_types: expected .* for each": dict(attention_types=[[[{"local": 1}], 3]]),
    "attention_types: expected .* and nothing came, which stands for 24": dict(attention_types=None),
    "window_size: expected a whole number of at least 1, got 0": dict(window_size=0),
    "does not say num_heads": dict(num_heads=None),
    "config.json: num_layers: expected a whole number of at least 1, got '3'": dict(num_layers="3"),
    "config.json: attention_dropout: expected a number in": dict(attention_dropout=2),
    "config.json: hidden_size 36 is not a multiple of num_heads 5": dict(hidden_size=36),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_implemented_is_refused_by_name(copied, message):
    changes = {"attention_layers": None} | REFUSED[message]
    raw = json.loads((copied / "config.json").read_text()) | changes
    (copied / "config.json").write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))
    with pytest.raises(InputError, match=message):
        load_lm(copied)


@pytest.mark.parametrize("layers", [["local", "local"], ["global", "local", "sparse"], "global", 3])
def test_layers_of_a_wrong_number_or_kind_are_refused(copied, layers):
    set_config(copied, attention_layers=layers)
    with pytest.raises(InputError, match='attention_layers: expected "global" or "local" for each of 3 layers, got'):
        load_lm(copied)


def test_where_two_settings_of_the_layers_differ_the_one_of_transformers_holds(copied, neo_lm_reference):
    set_config(copied, attention_layers=["local", "global", "local"])
    theirs = type(neo_lm_reference.hf).from_pretrained(copied, attn_implementation="eager").eval()
    assert theirs.config.attention_layers == ["local", "global", "local"]
    check_parity(load_lm(copied), theirs, *texts(11, 7))


def test_gpt_neox_is_another_network(copied):
    set_config(copied, model_type="gpt_neox", architectures=["GPTNeoXForCausalLM"])
    with pytest.raises(InputError, match="does not implement model_type = 'gpt_neox'"):
        load_lm(copied)


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(2, 3, 21, windows=(0, 4)),
        GPT2Config(2, 3, 21, qkv_bias=False),
        GPT2Config(2, 3, 21, qkv_bias=False, scale_scores=False, windows=(3, 4)),
    ],
    ids=str,
)
def test_what_transformers_has_no_name_for_is_not_saved(config, tmp_path):
    with pytest.raises(InputError, match="neither a GPT-2 nor a GPT-Neo"):
        save(GPT2LM(replace(config, vocab_size=11, n_ctx=7)), tmp_path)
    assert not [*tmp_path.iterdir()]


SILENT = dict(model_type="gpt_neo", num_layers=24, num_heads=16, hidden_size=2048)  # as HF's own defaults


def test_what_config_json_leaves_out_is_as_in_transformers():
    import transformers

    assert config_from_hf(SILENT, "there") == config_from_hf(transformers.GPTNeoConfig().to_dict(), "HF")
    assert config_from_hf(SILENT, "there") == GPT2Config.preset("gpt-neo-1.3B")


@pytest.mark.parametrize(("name", "weights"), [("gpt-neo-125m", 125_198_592), ("gpt-neo-1.3B", 1_315_575_808),
                                               ("gpt-neo-2.7B", 2_651_307_520)])  # fmt: skip
def test_published_sizes_have_the_weights_of_transformers(name, weights):
    import transformers

    config = GPT2Config.preset(name)
    with torch.device("meta"):
        theirs = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config_to_hf(config)))
        ours = GPT2LM(config)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == weights
