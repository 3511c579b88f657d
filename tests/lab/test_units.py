"""What can be closed: names, starts, and the regions by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import texts

from lab import units
from lab.units import each_layer
from model import masks

T = 5
TEXTS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]]), torch.tensor([T, 3])  # ids, lengths


def find(ablations, **names):
    [ablation] = [each for each in ablations if all(getattr(each, name) == value for name, value in names.items())]
    return ablation


def test_a_layer_is_its_heads_its_mlp_and_both(tiny):
    ablations = each_layer(tiny)
    assert len(ablations) == 3 * 3
    heads, mlp, layer = (find(ablations, kind=kind, layer=1).intervention(*TEXTS) for kind in ("heads", "mlp", "layer"))
    assert heads.keys() == {"head_gate"}
    assert mlp.keys() == {"mlp_gate"}
    assert layer.keys() == {"head_gate", "mlp_gate"}
    assert heads["head_gate"].flatten().tolist() == mlp["mlp_gate"].flatten().tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("region", "rows"),
    [
        ("self", ["00000", "10000", "11000", "11100", "11110"]),
        ("all but self", ["10000", "01000", "00100", "00010", "00001"]),
        ("previous token", ["10000", "01000", "10100", "11010", "11101"]),
        ("first token", ["00000", "01000", "01100", "01110", "01111"]),
        ("all but first token", ["10000", "10000", "10000", "10000", "10000"]),
        ("last 4 tokens", ["00000", "00000", "00000", "00000", "10000"]),
        ("last 8 tokens", ["00000"] * 5),
        ("all but last 4 tokens", ["10000", "11000", "11100", "11110", "01111"]),
    ],
)
def test_regions_by_hand(tiny, region, rows):
    """Which keys (columns) each query (row) may still attend to, of those that are not in its future."""
    ablations, causal = units.each_region(tiny), torch.ones(T, T).tril()
    want = torch.tensor([[int(digit) for digit in row] for row in rows])
    mask = find(ablations, kind="mask", layer=None, region=region).intervention(*TEXTS)["attn_mask"]
    assert ((mask[0, 0, 0] * causal) == want).all()
    gate = find(ablations, kind="cut", layer=None, region=region).intervention(*TEXTS)["attn_gate"]
    assert ((gate[0, 0, 0] * causal) == want).all()
    for kind in ("mask", "cut"):
        assert [find(ablations, kind=kind, layer=layer, region=region).start for layer in (None, 0, 2)] == [0, 0, 2]
    in_one = find(ablations, kind="mask", layer=2, region=region)
    mask = in_one.intervention(*TEXTS)["attn_mask"]
    assert mask[0, :2].all()
    assert ((mask[0, 2, 0] * causal) == want).all()


def test_rows_count_from_the_start_or_from_each_texts_end(tiny):
    ablations = units.each_region(tiny, (0, 3, -3))
    for region, closed in (("last query", [4, 2]), ("query 0", [0, 0]), ("query 3", [3, 3]), ("query -3", [2, 0])):
        assert [find(ablations, layer=layer, region=region).start for layer in (None, 0, 2)] == [0, 0, 2]
        mask = find(ablations, kind="mask", layer=None, region=region).intervention(*TEXTS)["attn_mask"]
        assert (~mask[:, 0, 0, :, 0]).nonzero().tolist() == [[0, closed[0]], [1, closed[1]]]


def test_random_cells_are_as_many_in_the_same_rows_and_others_for_each_text(tiny):
    config = replace(tiny, n_ctx=23)
    ablations, causal = units.each_region(config, seed=0, in_each_layer=True), torch.ones(T, T).tril().bool()
    for region in ("previous token", "all but self", "last 4 tokens"):
        unit, control = (
            find(ablations, kind="mask", layer=None, region=name).intervention(*TEXTS)["attn_mask"]
            for name in (region, f"random, as many as {region}")
        )
        for row, length in enumerate(TEXTS[1]):
            of_unit, of_control = (~unit[0, 0, 0] & causal)[:length], (~control[row, 0, 0])[:length]
            assert of_control.sum(1).tolist() == of_unit.sum(1).tolist()
            assert not (of_control & ~causal[:length]).any()
    control = find(ablations, kind="mask", layer=None, region="random, as many as previous token").intervention
    cut = find(ablations, kind="cut", layer=None, region="random, as many as previous token").intervention
    assert (cut(*TEXTS)["attn_gate"] == control(*TEXTS)["attn_mask"]).all()
    ids, lengths = torch.arange(40).view(2, 20), torch.tensor([20, 20])
    first, second = (~control(ids, lengths)["attn_mask"])[:, 0, 0]
    assert not torch.equal(first, second)  # of other token ids
    assert torch.equal((~control(ids[1:], lengths[1:])["attn_mask"])[0, 0, 0], second)  # of the same, in another batch
    padded = torch.nn.functional.pad(ids, (0, 3))
    assert torch.equal((~control(padded, lengths)["attn_mask"])[1, 0, 0, :20, :20], second)
    other_seed = units.hide_random_cells(config, units.REGIONS["previous token"], True, 1)(ids, lengths)["attn_mask"]
    assert not torch.equal(~other_seed[1, 0, 0], second)
    cells = torch.stack([(~control(ids + 100 * i, lengths)["attn_mask"])[0, 0, 0, 19] for i in range(200)]).sum(0)
    assert cells.sum() == 200
    assert cells.max() < 30  # no key of the last row is drawn much more often than the others


@pytest.mark.parametrize("region", ["first token", "all but last 4 tokens", "previous token"])
def test_in_a_local_layer_random_cells_are_as_many_as_the_window_shows_of_the_region(tiny_neo, region):
    ablations, (ids, lengths) = units.each_region(tiny_neo, seed=0, in_each_layer=True), texts(11, 7)
    of_unit, of_control = (
        ~find(ablations, kind="mask", layer=None, region=name).intervention(ids, lengths)["attn_mask"]
        for name in (region, f"random, as many as {region}")
    )
    assert of_control.shape == (2, 3, 1, 11, 11)
    for row, length in enumerate(lengths):
        for layer in range(3):
            window = masks.band(11, tiny_neo.window(layer))[0, 0, 0]
            cells = of_control[row, layer, 0, :length]
            assert not (cells & ~window[:length]).any()
            assert cells.sum(1).tolist() == (of_unit[0, 0, 0] & window)[:length].sum(1).tolist()
    alone = find(ablations, kind="mask", layer=1, region=f"random, as many as {region}").intervention(ids, lengths)
    assert torch.equal(~alone["attn_mask"][:, 1, 0], of_control[:, 1, 0])
    assert alone["attn_mask"][:, [0, 2]].all()


def test_regions_have_controls_with_a_seed_and_in_each_layer_where_it_is_asked_for(tiny):
    def layers(**settings):
        ablations = units.each_region(tiny, **settings)
        return {each.layer for each in ablations if each.region.startswith(units.RANDOM)}

    assert layers() == layers(in_each_layer=True) == set()
    assert layers(seed=0) == {None}
    assert layers(seed=0, in_each_layer=True) == {None, 0, 1, 2}


@pytest.mark.parametrize("kind", ["head", "mlp"])
def test_random_subspaces_are_orthonormal_all_different_and_evenly_spread(tiny, kind):
    C, D = tiny.n_embd, tiny.head_width
    ablations = units.random_subspaces(tiny, kind, 50, 0)
    assert [(each.kind, each.layer, each.start, each.head) for each in ablations[::50]] == [
        (kind, layer, layer, None) for layer in range(tiny.n_layer)
    ]
    bases = torch.stack([each.subspace for each in ablations])
    assert bases.shape == (50 * tiny.n_layer, C, D)
    torch.testing.assert_close(bases.mT @ bases, torch.eye(D).expand(len(bases), D, D), atol=1e-5, rtol=0)
    assert len({each.name for each in ablations}) == len(ablations) == len(torch.unique(bases[:, 0, 0]))
    projections = bases @ bases.mT  # the mean over all subspaces is D / C times the identity
    torch.testing.assert_close(projections.mean(0), D / C * torch.eye(C), atol=0.15, rtol=0)
    again, other = units.random_subspaces(tiny, kind, 50, 0)[7], units.random_subspaces(tiny, kind, 50, 1)[7]
    assert torch.equal(again.subspace, bases[7])
    assert not torch.equal(other.subspace, bases[7])
    gates = ablations[-1].intervention(*TEXTS)
    assert set(gates) == {f"{kind}_gate"}


def test_hidden_words_stand_beside_as_many_random_tokens():
    rng = np.random.default_rng(0)
    hidden = [rng.random(n) < 0.4 for n in (3, T)]
    own, random = units.each_word_class([[6, 7, 8], [1, 2, 3, 4, 5]], {"some": hidden}, rng)
    mask = own.intervention(*TEXTS)["attn_mask"]
    assert mask.shape == (2, 1, 1, 1, T)
    assert (~mask[0].flatten()).tolist() == hidden[1].tolist()  # the batch has text 1 first
    assert (~mask[1].flatten()).tolist() == [*hidden[0].tolist(), False, False]
    others = random.intervention(*TEXTS)["attn_mask"]
    assert (~others).sum(-1).flatten().tolist() == [hidden[1].sum(), hidden[0].sum()]
    assert random.region == "random, as many as some"


def test_pairs_and_growing_sets_close_all_their_heads(tiny):
    [pair] = units.each_pair(tiny, [((2, 3), (1, 0))])
    assert (pair.start, pair.region) == (1, "2.3 & 1.0")
    assert (pair.intervention(*TEXTS)["head_gate"][0, :, :, 0] == 0).nonzero().tolist() == [[1, 0], [2, 3]]
    order = [(2, 1), (1, 4), (0, 0)]
    closed = units.closing_one_by_one(tiny, order, [0, 1, 3])
    assert [own.start for own in closed] == [2, 2, 0]
    gates = [own.intervention(*TEXTS)["head_gate"][0, :, :, 0] for own in closed]
    assert [(gate == 0).nonzero().tolist() for gate in gates] == [[], [[2, 1]], sorted(map(list, order))]
