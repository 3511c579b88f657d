"""Auto-encoders: networks that pass a vector through a few numbers and learn to restore it.

An auto-encoder writes each vector as two numbers and reads the vector back from them; it is trained to restore what it
was given (Hinton & Salakhutdinov 2006). A variational one adds noise to the numbers and pays for each bit that they
say of the vector (Kingma & Welling 2014, 1312.6114): so it fills its map evenly, and where a number restores less than
it costs, it stays silent. A linear auto-encoder finds what PCA finds (Baldi & Hornik 1989).

Letters: N texts, C dimensions, d numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .corrections import Floats, standardise

HIDDEN = (128, 32)  # widths of the layers between a vector and its numbers, and back
LR, BATCH, EPOCHS = 3e-3, 128, 300
HELD_OUT, PATIENCE = 0.1, 15  # training ends when this share of the texts has not got better for so many epochs
BETA = 1.0  # what a nat of the numbers costs, where an error of 1 in one dimension costs 1/2
ACTIVE = 0.01  # a number is active where its variance over the texts is larger (Burda et al. 2016, 1509.00519)
RECIPE = [list(HIDDEN), LR, BATCH, EPOCHS, HELD_OUT, PATIENCE, BETA, ACTIVE]


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a trained auto-encoder makes of N vectors."""

    numbers: Floats  # (N, d); of a variational one, their means
    restored: Floats  # (N, C)

    @property
    def active_units(self) -> int:
        """The number of the d that say something of the vectors."""
        return int((self.numbers.var(axis=0) > ACTIVE).sum())


class Autoencoder(nn.Module):
    """Layers from C to d and back, GELU between them; torch's own generator is not used."""

    def __init__(self, widths: Sequence[int], variational: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.variational, self.generator = variational, generator
        self.encoder = stack_layers([*widths[:-1], widths[-1] * (2 if variational else 1)], generator)
        self.decoder = stack_layers(widths[::-1], generator)

    def loss(self, x: Tensor, beta: float) -> Tensor:
        """Return the mean over the vectors x (B, C) of half the squared error and, times beta, the divergence of the
        numbers from those of a standard normal distribution, in nats."""
        code = self.encoder(x)
        if not self.variational:
            return F.mse_loss(self.decoder(code), x, reduction="sum") / (2 * len(x))
        mean, log_variance = code.chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=self.generator)
        restored = self.decoder(mean + noise * (log_variance / 2).exp())
        divergence = (mean**2 + log_variance.exp() - log_variance - 1).sum() / 2
        return (F.mse_loss(restored, x, reduction="sum") / 2 + beta * divergence) / len(x)

    @torch.no_grad()
    def restore(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers (N, d), without noise, and the vectors (N, C) that they restore."""
        code = self.encoder(x)
        numbers = code.chunk(2, dim=1)[0] if self.variational else code
        return numbers, self.decoder(numbers)


def stack_layers(widths: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """Return linear layers of these widths with GELU between them, drawn as torch draws them, but from a generator."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layer = nn.utils.skip_init(nn.Linear, before, after)
        nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [nn.GELU(), layer] if layers else [layer]
    return nn.Sequential(*layers)


def encode(
    vectors: Floats, d: int, variational: bool, seed: int, hidden: Sequence[int] = HIDDEN, beta: float = BETA
) -> Encoded:
    """Train an auto-encoder on N > 1 vectors (N, C), standardised, and return what it makes of them."""
    scaled = standardise(vectors)(vectors)
    x, generator = torch.from_numpy(scaled).float(), torch.Generator().manual_seed(seed)
    network = Autoencoder([x.shape[1], *hidden, d], variational, generator)
    train(network, x, beta)
    numbers, restored = (each.numpy() for each in network.restore(x))
    deviation, mean = vectors.std(axis=0), vectors.mean(axis=0)
    return Encoded(numbers, restored * deviation + mean)


def train(network: Autoencoder, x: Tensor, beta: float) -> None:
    """Train on most of the vectors x (N, C) by Adam (Kingma & Ba 2015) until those held out are restored no better;
    take the weights that restored them best."""
    order = torch.randperm(len(x), generator=network.generator)
    held_out, trained = order.tensor_split([max(1, round(HELD_OUT * len(x)))])
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    best, weights, since = float("inf"), network.state_dict(), 0
    for _ in range(EPOCHS):
        for rows in trained[torch.randperm(len(trained), generator=network.generator)].split(BATCH):
            optimizer.zero_grad()
            network.loss(x[rows], beta).backward()
            optimizer.step()
        with torch.no_grad():
            loss = network.loss(x[held_out], beta).item()
        since = 0 if loss < best else since + 1
        if since == 0:
            best, weights = loss, {name: value.clone() for name, value in network.state_dict().items()}
        if since == PATIENCE:
            break
    network.load_state_dict(weights)
