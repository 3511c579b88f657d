"""The shape of a GPT-2 or GPT-Neo, checked when a config is made, and never changed."""

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


GPT_NEO = dict(n_ctx=2048, dropout=0.0, attn_dropout=0.0, scale_scores=False, qkv_bias=False)
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2": dict(n_layer=12, n_head=12, n_embd=768),  # 124M parameters
    "gpt2-medium": dict(n_layer=24, n_head=16, n_embd=1024),  # 355M
    "gpt2-large": dict(n_layer=36, n_head=20, n_embd=1280),  # 774M
    "gpt2-xl": dict(n_layer=48, n_head=25, n_embd=1600),  # 1558M
    "distilgpt2": dict(n_layer=6, n_head=12, n_embd=768),  # 82M
    "gpt-neo-125m": dict(n_layer=12, n_head=12, n_embd=768, windows=(0, 256) * 6, **GPT_NEO),  # 125M
    "gpt-neo-1.3B": dict(n_layer=24, n_head=16, n_embd=2048, windows=(0, 256) * 12, **GPT_NEO),  # 1316M
    "gpt-neo-2.7B": dict(n_layer=32, n_head=20, n_embd=2560, windows=(0, 256) * 16, **GPT_NEO),  # 2651M
    "gpt2-mini": dict(n_layer=6, n_head=8, n_embd=256),  # 18M, embedded in data/gpt2-mini
}


@dataclass(frozen=True)
class GPT2Config:
    """Sizes and rates of a GPT-2 (Radford et al. 2019), and in what a GPT-Neo (Black et al. 2021) differs from it.

    `dropout` acts on the embeddings and on what each sublayer adds to the residual stream, `attn_dropout` on the
    attention weights. `windows`: for each layer, how many keys up to its own position a query may attend to, 0: all;
    empty: all in every layer. Raises InputError for impossible values."""

    n_layer: int
    n_head: int
    n_embd: int
    n_ctx: int = 1024
    vocab_size: int = 50257
    layer_norm_epsilon: float = 1e-5
    dropout: float = 0.1
    attn_dropout: float = 0.1
    scale_scores: bool = True  # divide q . k by the root of the head's width
    qkv_bias: bool = True  # add a bias to q, k and v
    windows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise InputError(f"{field.name}: expected a whole number of at least 1, got {value!r}")
            if field.type is bool and type(value) is not bool:
                raise InputError(f"{field.name}: expected true or false, got {value!r}")
            if field.type is float and (type(value) not in (int, float) or not 0 <= value < 1):
                raise InputError(f"{field.name}: expected a number in [0, 1), got {value!r}")
        if self.n_embd % self.n_head:
            raise InputError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        if self.windows and len(self.windows) != self.n_layer:
            raise InputError(f"windows: expected one for each of {self.n_layer} layers, got {len(self.windows)}")
        if any(type(window) is not int or window < 0 for window in self.windows):
            raise InputError(f"windows: expected whole numbers of at least 0, got {self.windows}")
        weights = self.block_weights + (self.vocab_size + self.n_ctx) * self.n_embd
        if weights > MOST_WEIGHTS:  # before anything allocates them
            raise InputError(
                f"{self.describe()}: expected sizes that make at most {MOST_WEIGHTS:,} weights; correct them"
            )

    @property
    def head_width(self) -> int:
        return self.n_embd // self.n_head

    @property
    def block_weights(self) -> int:
        """Count the weights of the blocks' matrices; a token costs one multiply-add with each, forward."""
        return 12 * self.n_layer * self.n_embd**2

    def window(self, layer: int) -> int:
        """Return how many keys a query of this layer may attend to, its own included."""
        return (self.windows and self.windows[layer]) or self.n_ctx

    def describe(self) -> dict[str, Any]:
        """Return all fields as JSON, without those in which every GPT-2 is alike."""
        alike = {"scale_scores": True, "qkv_bias": True, "windows": ()}
        values = {name: value for name, value in asdict(self).items() if alike.get(name) != value}
        return {name: [*value] if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def preset(cls, name: str) -> "GPT2Config":
        """Return the config of a published size, or of `gpt2-mini`; InputError for another name."""
        if name not in PRESETS:
            raise InputError(f"no published size is called {name!r}; there are {', '.join(PRESETS)}")
        return cls(**PRESETS[name])
