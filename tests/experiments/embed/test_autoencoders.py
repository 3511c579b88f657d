"""Auto-encoders against PCA, and on what they cannot restore."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from experiments.embed.autoencoders import PATIENCE, Autoencoder, encode, train
from experiments.embed.corrections import standardise


def draw(n=300, C=7, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 2)) @ rng.normal(size=(2, C)) * 2
    return shared + rng.normal(size=(n, C)) * 0.5 + 3


def lose(x, restored):
    return ((x - restored) ** 2).sum()


def test_a_linear_one_restores_what_pca_does():
    x = standardise(draw())(draw())
    pca = PCA(2).fit(x)
    best = lose(x, pca.inverse_transform(pca.transform(x)))
    error = lose(x, encode(x, 2, False, 0, hidden=(), beta=0).restored)
    assert best * 0.999 <= error <= best * 1.01


def test_vectors_are_restored_at_their_scale():
    x = draw() * np.arange(1, 8) + 100
    x[:, 3] = 5
    restored = encode(x, 2, False, 0).restored
    assert lose(x, restored) < 0.2 * lose(x, x.mean(axis=0))
    np.testing.assert_allclose(restored[:, 3], 5, atol=1e-5)


@pytest.mark.parametrize("variational", [False, True])
def test_a_seed_gives_the_same_numbers_and_leaves_the_generator_of_torch(variational):
    x = draw(50)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = encode(x, 2, variational, 1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert np.array_equal(encode(x, 2, variational, 1).numbers, first.numbers)
    assert not np.array_equal(encode(x, 2, variational, 2).numbers, first.numbers)
    assert first.numbers.shape == (50, 2)


def test_numbers_that_cost_more_than_they_restore_stay_silent():
    x = draw()
    assert encode(x, 2, True, 0).active_units == 2
    assert encode(x, 2, True, 0, beta=1000).active_units == 0


def test_the_numbers_of_a_variational_one_spread_as_the_prior_does():
    numbers = encode(draw(), 2, True, 0).numbers
    assert np.abs(numbers.mean(axis=0)).max() < 0.3
    assert 0.6 < numbers.std() < 1.2


def test_training_ends_with_the_weights_that_restore_the_held_out_texts_best():
    held_out, losses = [], []

    class Watched(Autoencoder):
        def loss(self, x, beta):
            loss = super().loss(x, beta)
            if not torch.is_grad_enabled():
                held_out.append(x)
                losses.append(loss.item())
            return loss

    generator = torch.Generator().manual_seed(0)
    network = Watched([7, 16, 2], False, generator)
    train(network, torch.randn(40, 7, generator=generator), 0.0)
    best = int(np.argmin(losses))
    assert best == len(losses) - 1 - PATIENCE
    with torch.no_grad():
        assert network.loss(held_out[0], 0.0).item() == pytest.approx(losses[best], rel=1e-6)
    assert losses[best] < 0.99 * losses[-2]  # the last weights restore them worse
