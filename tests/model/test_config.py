"""The shape of a GPT-2: what it may be, the published sizes, and HF's config.json."""

import dataclasses
import json
import pathlib

import pytest
import torch

from model import GPT2LM, GPT2Config, InputError
from model.layouts import config_from_hf, config_to_hf

SIZES = dict(n_layer=3, n_head=5, n_embd=35)
MINI = pathlib.Path(__file__).parents[2] / "data" / "gpt2-mini"
RAW = {"model_type": "gpt2", **SIZES}


def test_a_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPT2Config(**SIZES).n_layer = 4


WHOLE, RATES = ("n_layer", "n_head", "n_embd", "n_ctx", "vocab_size"), ("layer_norm_epsilon", "dropout", "attn_dropout")
BAD = [(name, value) for name in WHOLE for value in (0, -1, 2.0, "3", True, None)]
BAD += [(name, value) for name in RATES for value in (-0.1, 1.0, float("nan"), float("inf"), "0.1", None)]


@pytest.mark.parametrize(("name", "value"), BAD, ids=str)
def test_a_bad_value_is_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"^{name}: expected .*, got {value!r}$"):
        GPT2Config(**SIZES | {name: value})


def test_a_width_that_the_heads_cannot_share_is_refused():
    with pytest.raises(InputError, match=r"n_embd 36 .* n_head 5"):
        GPT2Config(n_layer=3, n_head=5, n_embd=36)


def test_an_input_error_is_a_value_error_in_one_line():
    with pytest.raises(ValueError, match=r"\A.*\Z"):
        GPT2Config(n_layer=0, n_head=5, n_embd=35)


PARAMETERS = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "distilgpt2": 81_912_576,
    "gpt2-mini": 17_867_008,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_preset_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        model = GPT2LM(GPT2Config.preset(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["gpt3", "", "GPT2"])
def test_an_unknown_preset_is_refused_with_those_there_are(name):
    with pytest.raises(InputError, match=f"'{name}'.*gpt2, gpt2-medium.*gpt2-mini"):
        GPT2Config.preset(name)


def test_the_embedded_checkpoint_has_the_shape_of_its_preset():
    raw = json.loads((MINI / "config.json").read_text())
    assert config_from_hf(raw, "gpt2-mini") == GPT2Config.preset("gpt2-mini")


def test_the_defaults_are_those_of_transformers():
    import transformers

    assert config_from_hf(transformers.GPT2Config().to_dict(), "HF") == GPT2Config.preset("gpt2")


def test_every_field_is_read_from_its_own_key():
    rates = dict(layer_norm_epsilon=0.01, embd_pdrop=0.2, resid_pdrop=0.2, attn_pdrop=0.3)
    got = config_from_hf(RAW | rates | dict(n_positions=13, vocab_size=101), "there")
    assert got == GPT2Config(3, 5, 35, 13, 101, layer_norm_epsilon=0.01, dropout=0.2, attn_dropout=0.3)


def test_transformers_reads_our_config_as_we_do():
    import transformers

    config = GPT2Config(3, 5, 35, 13, 101, layer_norm_epsilon=0.01, dropout=0.2, attn_dropout=0.3)
    theirs = transformers.GPT2Config(**config_to_hf(config))
    assert config_from_hf(theirs.to_dict(), "HF") == config
    assert (theirs.hidden_size, theirs.num_hidden_layers, theirs.num_attention_heads) == (35, 3, 5)
    assert (theirs.resid_pdrop, theirs.pad_token_id) == (0.2, 50256)


ACCEPTED = [
    dict(n_inner=None), dict(n_inner=140), dict(problem_type=None), dict(problem_type="single_label_classification"),
    dict(summary_type="cls_index", reorder_and_upcast_attn=False, use_cache=True, something_new=1),
]  # fmt: skip


@pytest.mark.parametrize("extra", ACCEPTED, ids=str)
def test_what_changes_nothing_is_accepted(extra):
    assert config_from_hf(RAW | extra, "there") == GPT2Config(**SIZES)


REFUSED = [
    dict(model_type="gpt_neox"), dict(activation_function="gelu"), dict(n_inner=70),
    dict(scale_attn_by_inverse_layer_idx=True), dict(add_cross_attention=True), dict(tie_word_embeddings=False),
    dict(resid_pdrop=0.2), dict(embd_pdrop=0.2, resid_pdrop=0.1), dict(problem_type="multi_label_classification"),
    dict(problem_type="regression"),
]  # fmt: skip


@pytest.mark.parametrize("extra", REFUSED, ids=str)
def test_what_is_not_implemented_is_refused_by_name(extra):
    name, value = list(extra.items())[-1]
    with pytest.raises(InputError, match=f"^there: headgate does not implement .*{name} = {value!r}"):
        config_from_hf(RAW | extra, "there")


def test_everything_refused_is_listed():
    with pytest.raises(InputError, match=r"activation_function = 'relu'.*n_inner = 7"):
        config_from_hf(RAW | dict(activation_function="relu", n_inner=7), "there")


@pytest.mark.parametrize("name", RAW)
def test_a_missing_size_is_refused_by_name(name):
    with pytest.raises(InputError, match=f"^there: config.json does not say {name}$"):
        config_from_hf({key: value for key, value in RAW.items() if key != name}, "there")


def test_a_gpt2_is_described_as_before_there_were_others():
    sizes = {"n_layer": 3, "n_head": 5, "n_embd": 35, "n_ctx": 13, "vocab_size": 101}
    rates = {"layer_norm_epsilon": 0.01, "dropout": 0.2, "attn_dropout": 0.3}
    assert GPT2Config(3, 5, 35, 13, 101, 0.01, 0.2, 0.3).describe() == sizes | rates


def test_what_a_gpt_neo_differs_in_is_described_as_json():
    described = GPT2Config.preset("gpt-neo-125m").describe()
    assert json.loads(json.dumps(described)) == described
    assert (described["scale_scores"], described["qkv_bias"]) == (False, False)
    assert described["windows"] == [0, 256] * 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(windows=(0, 4)), "windows: expected one for each of 3 layers, got 2"),
        (dict(windows=(0, 4, -1)), r"windows: expected whole numbers of at least 0, got \(0, 4, -1\)"),
        (dict(windows=(0, 4, True)), "windows: expected whole numbers"),
        (dict(qkv_bias=0), "qkv_bias: expected true or false, got 0"),
        (dict(scale_scores=None), "scale_scores: expected true or false, got None"),
    ],
)
def test_impossible_settings_of_a_gpt_neo_are_refused(values, message):
    with pytest.raises(InputError, match=f"^{message}"):
        GPT2Config(3, 5, 35, **values)


def test_unscaled_scores_of_a_gpt2_are_read_and_written():
    config = config_from_hf(RAW | dict(scale_attn_weights=False), "there")
    assert config == GPT2Config(**SIZES, scale_scores=False)
    assert config_to_hf(config)["scale_attn_weights"] is False
