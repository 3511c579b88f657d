"""How `transformers` writes a GPT-2 and a GPT-Neo: the settings in config.json, the names and shapes of the tensors.

GPT-2 has its projections as Conv1D, [in, out], where ours are nn.Linear, [out, in]. GPT-Neo has nn.Linear, and keeps q,
k and v apart, where ours are the rows of one matrix."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .config import GPT_NEO, GPT2Config, InputError

STARTS = {"GPT2": "gpt2", "GPTNeoFor": "gpt_neo"}  # of the names of architectures; GPTNeoX is another network
TANH_GELU = ("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh")  # all the same function


class Place(NamedTuple):
    """Where a stored tensor belongs in our network."""

    parameter: str
    rows: slice  # of the parameter
    shape: tuple[int, ...]  # as stored
    is_transposed: bool

    def turn(self, tensor: Tensor) -> Tensor:
        """Turn a stored tensor into the rows of our parameter, or the rows into what is stored."""
        return tensor.T if self.is_transposed else tensor


@dataclass(frozen=True)
class Layout:
    """The names that `transformers` gives to one kind of network."""

    model_type: str
    language_model: str
    classifier: str
    settings: dict[str, str]  # our names -> theirs
    defaults: dict[str, Any]  # by our names, where config.json says nothing and GPT2Config has another default
    implemented: dict[str, Any]  # by their names: the values with which this code implements further settings
    residual_dropout: str
    inner_width: str
    tensors: dict[str, tuple[str, ...]]  # parts of our names -> of theirs, in the order of the rows
    transposed: tuple[str, ...]  # ends of our names

    def places(self, shapes: Mapping[str, torch.Size]) -> dict[str, Place]:
        """Return where each stored tensor belongs, by its name behind our `trunk.`; shapes: of our parameters."""
        places = {}
        for name, shape in shapes.items():
            ours = next((ours for ours in self.tensors if ours in name), "")
            parts = [name.replace(ours, theirs) for theirs in self.tensors[ours]] if ours else [name]
            n, is_transposed = shape[0] // len(parts), name.endswith(self.transposed)
            stored = (n, *shape[1:])[::-1] if is_transposed else (n, *shape[1:])
            for i, part in enumerate(parts):
                places[part] = Place(name, slice(i * n, (i + 1) * n), stored, is_transposed)
        return places


LAYOUTS = {
    "gpt2": Layout(
        model_type="gpt2",
        language_model="GPT2LMHeadModel",
        classifier="GPT2ForSequenceClassification",
        settings={
            "n_layer": "n_layer",
            "n_head": "n_head",
            "n_embd": "n_embd",
            "n_ctx": "n_positions",
            "vocab_size": "vocab_size",
            "layer_norm_epsilon": "layer_norm_epsilon",
            "dropout": "embd_pdrop",
            "attn_dropout": "attn_pdrop",
            "scale_scores": "scale_attn_weights",
        },
        defaults={},
        implemented={
            "activation_function": "gelu_new",
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
            "tie_word_embeddings": True,
        },
        residual_dropout="resid_pdrop",
        inner_width="n_inner",
        tensors={},
        transposed=("c_attn.weight", "c_proj.weight", "c_fc.weight"),
    ),
    "gpt_neo": Layout(
        model_type="gpt_neo",
        language_model="GPTNeoForCausalLM",
        classifier="GPTNeoForSequenceClassification",
        settings={
            "n_layer": "num_layers",
            "n_head": "num_heads",
            "n_embd": "hidden_size",
            "n_ctx": "max_position_embeddings",
            "vocab_size": "vocab_size",
            "layer_norm_epsilon": "layer_norm_epsilon",
            "dropout": "embed_dropout",
            "attn_dropout": "attention_dropout",
        },
        defaults=GPT_NEO,
        implemented={"activation_function": "gelu_new", "tie_word_embeddings": True},
        residual_dropout="resid_dropout",
        inner_width="intermediate_size",
        tensors={
            "attn.c_attn.": ("attn.attention.q_proj.", "attn.attention.k_proj.", "attn.attention.v_proj."),
            "attn.c_proj.": ("attn.attention.out_proj.",),
        },
        transposed=(),
    ),
}


def choose_layout(config: GPT2Config) -> Layout:
    """Return the layout that can hold a network of this shape; InputError where `transformers` has none."""
    if config.qkv_bias and not any(config.windows):
        return LAYOUTS["gpt2"]
    if not config.qkv_bias and not config.scale_scores and len({*config.windows} - {0}) <= 1:
        return LAYOUTS["gpt_neo"]
    raise InputError(f"{config.describe()}: this is neither a GPT-2 nor a GPT-Neo, and no checkpoint can hold it")


def config_from_hf(raw: dict[str, Any], source: str) -> GPT2Config:
    """Return the config in HF's config.json; InputError if it asks for what this code does not implement."""
    layout, raw = recognise(raw, source)
    needed = ("n_layer", "n_head", "n_embd")
    if missing := [layout.settings[name] for name in needed if layout.settings[name] not in raw]:
        raise InputError(f"{source}: config.json does not say {', '.join(missing)}")
    values = {ours: raw[name] for ours, name in layout.settings.items() if name in raw}
    try:
        config = GPT2Config(**layout.defaults | values)
        if layout.model_type == "gpt_neo":
            config = replace(config, windows=read_windows(raw, config.n_layer))
    except InputError as error:  # of our names
        message = re.sub(r"\w+", lambda name: layout.settings.get(name[0], name[0]), str(error))
        raise InputError(f"{source}: config.json: {message}") from None
    differing = [name for name, value in layout.implemented.items() if raw.get(name, value) != value]
    if raw.get(layout.residual_dropout, layout.defaults.get("dropout", GPT2Config.dropout)) != config.dropout:
        differing.append(layout.residual_dropout)
    if raw.get(layout.inner_width) not in (None, 4 * config.n_embd):
        differing.append(layout.inner_width)
    if raw.get("problem_type") not in (None, "single_label_classification"):
        differing.append("problem_type")
    if differing:
        refused = ", ".join(f"{name} = {raw.get(name)!r}" for name in differing)
        raise InputError(f"{source}: headgate does not implement {refused}")
    return config


def recognise(raw: dict[str, Any], source: str) -> tuple[Layout, dict[str, Any]]:
    """Return the layout of HF's config.json, and its settings with one name for each activation. InputError for other
    kinds of networks."""
    architectures = raw.get("architectures")
    names = map(str, architectures if isinstance(architectures, list) else [])
    guessed = [kind for name in names for start, kind in STARTS.items() if name.startswith(start)]
    model_type = raw.get("model_type", guessed[0] if guessed else None)
    if model_type is None:
        raise InputError(f"{source}: config.json does not say model_type")
    if not isinstance(model_type, str) or model_type not in LAYOUTS:
        raise InputError(f"{source}: headgate does not implement model_type = {model_type!r}")
    activation = {"activation_function": "gelu_new"} if raw.get("activation_function") in TANH_GELU else {}
    return LAYOUTS[model_type], raw | activation


def read_windows(raw: dict[str, Any], n_layer: int) -> tuple[int, ...]:
    """Return the window of each layer of a GPT-Neo: 0, or in a layer whose attention is local, `window_size`.

    As in `transformers`, `attention_layers` goes before `attention_types`, whose layers come in groups."""
    window = raw.get("window_size", 256)
    if type(window) is not int or window < 1:
        raise InputError(f"window_size: expected a whole number of at least 1, got {window!r}")
    types = raw.get("attention_types") or [[["global", "local"], 12]]  # HF's default
    name = "attention_layers" if "attention_layers" in raw else "attention_types"
    try:
        kinds = raw[name] if name == "attention_layers" else expand(types, n_layer)
        fits = len(kinds) == n_layer and all(kind in ("global", "local") for kind in kinds)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        came = f"got {raw[name]!r}" if raw.get(name) else "and nothing came, which stands for 24"
        raise InputError(f'{name}: expected "global" or "local" for each of {n_layer} layers, {came}')
    return tuple(window if kind == "local" else 0 for kind in kinds)


def expand(types: Any, n_layer: int) -> list[Any]:
    """Return the kind of each layer from groups [[kinds, times], ...]; none where these are not so many layers."""
    number = sum(len(kinds) * times for kinds, times in types)
    return [kind for kinds, times in types for kind in kinds * times] if number == n_layer else []


def config_to_hf(config: GPT2Config) -> dict[str, Any]:
    """Return the content of HF's config.json for a language model of this shape."""
    layout = choose_layout(config)
    shape = {theirs: getattr(config, ours) for ours, theirs in layout.settings.items()}
    if layout.model_type == "gpt_neo":
        windows = config.windows or (0,) * config.n_layer
        shape["attention_types"] = [[["local" if window else "global" for window in windows], 1]]
        shape["window_size"] = max(windows) or 256
    kind = {"model_type": layout.model_type, "architectures": [layout.language_model]}
    tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 50256)  # HF needs pad for batches
    return layout.implemented | shape | kind | {layout.residual_dropout: config.dropout} | tokens
