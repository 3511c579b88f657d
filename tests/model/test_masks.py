"""The small builders of masks and gates: by hand-written matrices, and by what the model then does."""

import pytest
import torch
from tiny import B, H, L, T, difference, texts

from model import Trace, masks

TEXTS = texts(7, 11)


def matrix(rows: str) -> torch.Tensor:
    """'10 11' -> [[True, False], [True, True]]."""
    return torch.tensor([[character == "1" for character in row] for row in rows.split()])


REGIONS = {
    "self_token": (lambda T: masks.self_token(T), "10000 01000 00100 00010 00001"),
    "previous_token": (lambda T: masks.previous_token(T), "00000 10000 01000 00100 00010"),
    "first_token": (lambda T: masks.first_token(T), "10000 10000 10000 10000 10000"),
    "band of 1": (lambda T: masks.band(T, 1), "10000 01000 00100 00010 00001"),
    "band of 3": (lambda T: masks.band(T, 3), "10000 11000 11100 01110 00111"),
    "band of 9": (lambda T: masks.band(T, 9), "10000 11000 11100 11110 11111"),
    "queries 1, 3": (lambda T: masks.queries(T, [1, 3]), "00000 11111 00000 11111 00000"),
    "keys 0, 3": (lambda T: masks.keys(T, [3, 0]), "10010 10010 10010 10010 10010"),
    "no keys": (lambda T: masks.keys(T, []), "00000 00000 00000 00000 00000"),
    "both": (lambda T: masks.combine(masks.band(T, 2), ~masks.first_token(T)), "00000 01000 01100 00110 00011"),
    "two regions": (lambda T: masks.self_token(T) | masks.queries(T, [2]), "10000 01000 11111 00010 00001"),
}
EVERY_REGION = pytest.mark.parametrize("name", REGIONS)


@EVERY_REGION
def test_a_region_is_this_matrix(name):
    build, rows = REGIONS[name]
    got = build(5)
    assert got.dtype == torch.bool
    assert got.shape == (1, 1, 1, 5, 5)
    assert torch.equal(got[0, 0, 0], matrix(rows))


def seen(model, ids, lengths=None, **arguments) -> torch.Tensor:
    """Where attention weights are not exactly zero, bool (B, L, H, T, T)."""
    trace = Trace("weights")
    model.trunk(ids, lengths, trace=trace, **arguments)
    return trace.stacked("weights") != 0


CAUSAL = matrix("10000 11000 11100 11110 11111")


@EVERY_REGION
@pytest.mark.parametrize("inside", [True, False])
def test_a_region_is_where_the_model_attends_or_where_it_does_not(clf_reference, name, inside):
    build, rows = REGIONS[name]
    region = build(5) if inside else ~build(5)
    expected = (matrix(rows) == inside) & CAUSAL
    got = seen(clf_reference.ours, texts(5, 5)[0], attn_mask=region)
    assert torch.equal(got, expected.expand(B, L, H, 5, 5))


# Gates.


GATES = {
    "close_heads": ([(0, 1), (2, 4)], (1, L, H, 1), [1, 0, 1, 1, 1, *[1] * H, 1, 1, 1, 1, 0]),
    "close_attention": ([2, 0], (1, L, 1, 1), [0, 1, 0]),
    "close_mlps": ([1], (1, L, 1), [1, 0, 1]),
}


@pytest.mark.parametrize("name", GATES)
def test_a_gate_is_closed_where_it_was_asked_to_be(tiny, name):
    where, shape, values = GATES[name]
    gate = getattr(masks, name)(tiny, where)
    assert gate.shape == shape
    assert gate.flatten().tolist() == values


def test_each_head_has_one_closed_head_per_row(tiny):
    gate = masks.each_head(tiny)
    assert gate.shape == (L * H, L, H, 1)
    assert [row.nonzero().tolist() for row in 1 - gate[..., 0]] == [[[i // H, i % H]] for i in range(L * H)]


# Masks from other masks, and from tokens.


def test_combine_broadcasts():
    text, head = masks.hide_tokens(matrix("00100 10001")), torch.ones(1, 1, H, 1, 1, dtype=torch.bool)
    head[:, :, 2] = False
    both = masks.combine(text, head, masks.self_token(5))
    assert both.shape == (2, 1, H, 5, 5)
    assert not both[:, :, 2].any()
    assert torch.equal(both[1, 0, 3], matrix("00000 01000 00100 00010 00000"))


WHERE = [dict(layers=[1]), dict(heads=[(0, 2), (2, 0)]), dict(layers=[]), dict(heads=[])]


@pytest.mark.parametrize("where", WHERE, ids=str)
def test_a_restricted_mask_acts_there_and_nowhere_else(clf_reference, where):
    model = clf_reference.ours
    mask = masks.restrict(masks.self_token(5), model.config, **where)
    got = seen(model, texts(5, 5)[0], attn_mask=mask)
    for layer in range(L):
        for head in range(H):
            acts = layer in where.get("layers", []) or (layer, head) in where.get("heads", [])
            expected = matrix("10000 01000 00100 00010 00001") if acts else CAUSAL
            assert torch.equal(got[:, layer, head], expected.expand(2, 5, 5))


def test_restrict_keeps_the_axes_of_its_mask(tiny):
    mask = masks.hide_tokens(matrix("00100 10001"))
    got = masks.restrict(mask, tiny, heads=[(1, 3)])
    assert torch.equal(got[:, 1, 3], mask[:, 0, 0])
    assert got.sum() == got.numel() - (~mask).sum()


REFUSED = [
    (lambda c: masks.close_heads(c, [(L, 0)]), rf"layer {L}: expected 0 .. {L - 1}"),
    (lambda c: masks.close_heads(c, [(0, H)]), rf"head {H}: expected 0 .. {H - 1}"),
    (lambda c: masks.close_heads(c, [(0, -1)]), "head -1"),
    (lambda c: masks.close_attention(c, [-1]), "layer -1"),
    (lambda c: masks.close_mlps(c, [L]), f"layer {L}"),
    (lambda c: masks.restrict(masks.self_token(5), c, layers=[L]), f"layer {L}"),
    (lambda c: masks.restrict(masks.self_token(5), c, heads=[(-1, 0)]), "layer -1"),
    (lambda c: masks.keys(5, [5]), "position 5: expected 0 .. 4"),
    (lambda c: masks.queries(5, [-1]), "position -1"),
    (lambda c: masks.band(5, 0), "width of at least 1, got 0"),
    (lambda c: masks.last_tokens(0), "last_tokens: expected at least 1, got 0"),
    (lambda c: masks.combine(), "at least one mask"),
    (lambda c: masks.hide_tokens(torch.zeros(2, 5)), r"hidden: expected bool \(B, T\), got torch.float32"),
    (lambda c: masks.hide_tokens(torch.zeros(5, dtype=torch.bool)), r"hidden: expected bool \(B, T\), got torch.bool"),
    (lambda c: masks.restrict(masks.self_token(5), c), "either layers or heads"),
    (lambda c: masks.restrict(masks.self_token(5), c, layers=[1], heads=[(1, 1)]), "restrict: give either"),
]


@pytest.mark.parametrize(("build", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_is_refused(tiny, build, message):
    with pytest.raises(ValueError, match=message):
        build(tiny)


# Interventions: (ids, lengths) -> arguments.

IDS, LENGTHS = torch.tensor([[8, 3, 8, 5, 0], [9, 8, 3, 7, 6]]), torch.tensor([4, 5])
INTERVENTIONS = {
    "hide_ids": (masks.hide_ids([3, 8]), ["00000 00000 00000 00010 00011", "10000 10000 10000 10010 10011"]),
    "hide_ids of nothing there": (masks.hide_ids([77]), ["10000 11000 11100 11110 11111"] * 2),
    "hide_ids of nothing": (masks.hide_ids([]), ["10000 11000 11100 11110 11111"] * 2),
    "last 2": (masks.last_tokens(2), ["00000 00000 00100 00110 00111", "00000 00000 00000 00010 00011"]),
    "last 9": (masks.last_tokens(9), ["10000 11000 11100 11110 11111"] * 2),
    "close_last_query": (masks.close_last_query, ["10000 11000 11100 00000 11111", "10000 11000 11100 11110 00000"]),
    "close_query 1": (masks.close_query(1), ["10000 00000 11100 11110 11111"] * 2),
    "close_query -5": (masks.close_query(-5), ["10000 11000 11100 11110 11111", "00000 11000 11100 11110 11111"]),
    "close_query 7": (masks.close_query(7), ["10000 11000 11100 11110 11111"] * 2),
}


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_an_intervention_hides_this_in_a_padded_batch(clf_reference, name):
    intervention, rows = INTERVENTIONS[name]
    got = seen(clf_reference.ours, IDS, LENGTHS, **intervention(IDS, LENGTHS))
    for text, expected in enumerate(rows):
        assert torch.equal(got[text], matrix(expected).expand(L, H, 5, 5))


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_an_intervention_works_while_a_text_grows(lm_reference, name):
    intervention, lm = INTERVENTIONS[name][0], lm_reference.ours
    expected, prompt = texts(4, 4)[0], texts(4, 4)[0]
    for _ in range(6):  # by hand, all positions
        lengths = torch.full((2,), expected.shape[1])
        logits = lm(expected, lengths, **intervention(expected, lengths))
        expected = torch.cat([expected, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert lm.generate(prompt, 6, intervention=intervention).tolist() == expected.tolist()


def test_the_last_query_without_keys_reads_its_own_stream_alone(clf_reference):
    """Nothing of the other tokens reaches the class: only the last token and its position do."""
    model, (ids, lengths) = clf_reference.ours, texts(T, T)
    others = ids.clone()
    others[:, :-1] = texts(T, T, seed=1)[0][:, :-1]
    arguments = masks.close_last_query(ids, lengths)
    assert difference(model(ids, lengths, **arguments), model(others, lengths, **arguments)) < 1e-6
    assert difference(model(ids, lengths), model(others, lengths)) > 1e-3
