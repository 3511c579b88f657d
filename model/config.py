"""The shape of a GPT-2: eight numbers, checked when a config is made, and never changed."""

from dataclasses import asdict, dataclass, fields
from typing import Any

LONGEST_MESSAGE = 3000  # characters
MOST_WEIGHTS = 10**11  # 400 GB in fp32; the largest published GPT-2 has 6
END_OF_TEXT = "<|endoftext|>"  # the last token of GPT-2's vocabulary


class InputError(ValueError):
    """The user's mistake: says what was expected, what came and what to do next, in one line.

    A message may quote any input, so characters that a terminal would obey are escaped, and long messages lose their
    middle."""

    def __init__(self, message: str) -> None:
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[: LONGEST_MESSAGE // 2]} ... {message[-LONGEST_MESSAGE // 3 :]}"
        super().__init__("".join(char if char.isprintable() else repr(char)[1:-1] for char in message))


PRESETS = {
    "gpt2": dict(n_layer=12, n_head=12, n_embd=768),  # 124M parameters
    "gpt2-medium": dict(n_layer=24, n_head=16, n_embd=1024),  # 355M
    "gpt2-large": dict(n_layer=36, n_head=20, n_embd=1280),  # 774M
    "gpt2-xl": dict(n_layer=48, n_head=25, n_embd=1600),  # 1558M
    "distilgpt2": dict(n_layer=6, n_head=12, n_embd=768),  # 82M
    "gpt2-mini": dict(n_layer=6, n_head=8, n_embd=256),  # 18M, embedded in data/gpt2-mini
}

# Our names -> HF's; and the values with which this code implements HF's other settings.
HF_NAMES = {
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
    "n_ctx": "n_positions",
    "vocab_size": "vocab_size",
    "layer_norm_epsilon": "layer_norm_epsilon",
    "dropout": "embd_pdrop",
    "attn_dropout": "attn_pdrop",
}
TANH_GELU = ("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh")  # all the same function
IMPLEMENTED = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class GPT2Config:
    """Sizes and rates of a GPT-2 (Radford et al. 2019). Raises InputError for impossible ones.

    `dropout` acts on the embeddings and on what each sublayer adds to the residual stream, `attn_dropout` on the
    attention weights."""

    n_layer: int
    n_head: int
    n_embd: int
    n_ctx: int = 1024
    vocab_size: int = 50257
    layer_norm_epsilon: float = 1e-5
    dropout: float = 0.1
    attn_dropout: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                if type(value) is not int or value < 1:
                    raise InputError(f"{field.name}: expected a whole number of at least 1, got {value!r}")
            elif type(value) not in (int, float) or not 0 <= value < 1:
                raise InputError(f"{field.name}: expected a number in [0, 1), got {value!r}")
        if self.n_embd % self.n_head:
            raise InputError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        weights = self.block_weights + (self.vocab_size + self.n_ctx) * self.n_embd
        if weights > MOST_WEIGHTS:  # before anything allocates them
            raise InputError(f"{asdict(self)}: expected sizes that make at most {MOST_WEIGHTS:,} weights; correct them")

    @property
    def head_width(self) -> int:
        return self.n_embd // self.n_head

    @property
    def block_weights(self) -> int:
        """Count the weights of the blocks' matrices; a token costs one multiply-add with each, forward."""
        return 12 * self.n_layer * self.n_embd**2

    @classmethod
    def preset(cls, name: str) -> "GPT2Config":
        """Return the config of a published size, or of `gpt2-mini`; InputError for another name."""
        if name not in PRESETS:
            raise InputError(f"no published size is called {name!r}; there are {', '.join(PRESETS)}")
        return cls(**PRESETS[name])

    @classmethod
    def from_hf(cls, raw: dict[str, Any], source: str) -> "GPT2Config":
        """Return the config in HF's config.json; InputError if it asks for what this code does not implement."""
        architectures = raw.get("architectures")
        if isinstance(architectures, list) and any(str(name).startswith("GPT2") for name in architectures):
            raw = {"model_type": "gpt2"} | raw
        if raw.get("activation_function") in TANH_GELU:
            raw = raw | {"activation_function": IMPLEMENTED["activation_function"]}
        if missing := [name for name in ("model_type", "n_layer", "n_head", "n_embd") if name not in raw]:
            raise InputError(f"{source}: config.json does not say {', '.join(missing)}")
        try:
            config = cls(**{ours: raw[name] for ours, name in HF_NAMES.items() if name in raw})
        except InputError as error:
            raise InputError(f"{source}: config.json: {error}") from None
        differing = [name for name, value in IMPLEMENTED.items() if raw.get(name, value) != value]
        if raw.get("resid_pdrop", 0.1) != config.dropout:  # 0.1: HF's default
            differing.append("resid_pdrop")
        if raw.get("n_inner") not in (None, 4 * config.n_embd):
            differing.append("n_inner")
        if raw.get("problem_type") not in (None, "single_label_classification"):
            differing.append("problem_type")
        if differing:
            refused = ", ".join(f"{name} = {raw.get(name)!r}" for name in differing)
            raise InputError(f"{source}: headgate does not implement {refused}")
        return config

    def to_hf(self) -> dict[str, Any]:
        """Return the content of HF's config.json for a language model of this shape."""
        tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 50256)  # HF needs pad for batches
        shape = {HF_NAMES[name]: value for name, value in asdict(self).items()}
        return IMPLEMENTED | shape | {"resid_pdrop": self.dropout, "architectures": ["GPT2LMHeadModel"]} | tokens
