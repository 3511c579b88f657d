"""The shape of a GPT-2: eight numbers, checked once and never changed."""

from dataclasses import dataclass, fields


class InputError(ValueError):
    """The user's mistake: says what was expected, what came and what to do next, in one line."""


PRESETS = {
    "gpt2": dict(n_layer=12, n_head=12, n_embd=768),  # 124M parameters
    "gpt2-medium": dict(n_layer=24, n_head=16, n_embd=1024),  # 355M
    "gpt2-large": dict(n_layer=36, n_head=20, n_embd=1280),  # 774M
    "gpt2-xl": dict(n_layer=48, n_head=25, n_embd=1600),  # 1558M
    "distilgpt2": dict(n_layer=6, n_head=12, n_embd=768),  # 82M
    "gpt2-mini": dict(n_layer=6, n_head=8, n_embd=256),  # 18M, embedded in data/gpt2-mini
}


@dataclass(frozen=True)
class GPT2Config:
    """Sizes and rates of a GPT-2 (Radford et al. 2019). Raises InputError where they cannot be.

    `dropout` acts on the embeddings and on what each sublayer adds to the residual stream,
    `attn_dropout` on the attention weights.
    """

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
            elif not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise InputError(f"{field.name}: expected a number in [0, 1), got {value!r}")
        if self.n_embd % self.n_head:
            raise InputError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")

    @property
    def head_width(self) -> int:
        return self.n_embd // self.n_head

    @classmethod
    def preset(cls, name: str) -> "GPT2Config":
        """The published sizes, and `gpt2-mini`, by name."""
        if name not in PRESETS:
            raise InputError(f"no published size is called {name!r}; there are {', '.join(PRESETS)}")
        return cls(**PRESETS[name])
