"""The small builders of masks and gates: by hand-written matrices, and by what the model then does."""

import pytest
import torch
from tiny import B, D, H, L, T, difference, texts

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


def test_a_cut_region_removes_its_part_of_z(clf_reference):
    """One weight cut in layer 0: z loses weight times v of that key, and nothing else."""
    model, (ids, _) = clf_reference.ours, texts(5, 5)
    region = masks.queries(5, [3]) & masks.keys(5, [1])
    plain, cut = Trace("weights", "v", "z"), Trace("z")
    model.trunk(ids, trace=plain)
    model.trunk(ids, trace=cut, attn_gate=(~region).float())
    lost = torch.zeros(B, H, 5, D)
    lost[:, :, 3] = plain.weights[0][:, :, 3, 1, None] * plain.v[0][:, :, 1]
    assert difference(plain.z[0] - cut.z[0], lost) < 1e-5


# Gates.


def test_close_heads_closes_these_pairs(tiny):
    gate = masks.close_heads(tiny, [(0, 1), (2, 4)])
    assert gate.shape == (1, L, H, 1)
    assert gate[0, :, :, 0].tolist() == [[1, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]


def test_close_attention_closes_all_their_heads(tiny):
    gate = masks.close_attention(tiny, [2, 0])
    assert gate.shape == (1, L, 1, 1)
    assert gate.flatten().tolist() == [0, 1, 0]


def test_close_mlps_closes_these_mlps(tiny):
    gate = masks.close_mlps(tiny, [1])
    assert gate.shape == (1, L, 1)
    assert gate.flatten().tolist() == [1, 0, 1]


def test_each_head_has_one_closed_head_per_row(tiny):
    gate = masks.each_head(tiny)
    assert gate.shape == (L * H, L, H, 1)
    assert [row.nonzero().tolist() for row in 1 - gate[..., 0]] == [[[i // H, i % H]] for i in range(L * H)]


def test_closed_heads_emit_nothing_and_the_others_something(clf_reference):
    trace = Trace("z")
    clf_reference.ours(*TEXTS, trace=trace, head_gate=masks.close_heads(clf_reference.ours.config, [(0, 1), (2, 4)]))
    silent = ~trace.stacked("z").any(-1).any(-1)
    assert silent.nonzero().tolist() == [[b, *pair] for b in range(B) for pair in ([0, 1], [2, 4])]


@pytest.mark.parametrize("name", ["close_attention", "close_mlps"])
def test_closed_layers_emit_nothing_and_the_others_something(clf_reference, name):
    record, argument = {"close_attention": ("z", "head_gate"), "close_mlps": ("mlp", "mlp_gate")}[name]
    trace = Trace(record)
    clf_reference.ours(*TEXTS, trace=trace, **{argument: getattr(masks, name)(clf_reference.ours.config, [1])})
    assert [bool(layer.any()) for layer in getattr(trace, record)] == [True, False, True]


# Masks from other masks, and from tokens.


def test_hide_tokens_hides_them_as_keys_in_each_text_of_its_own(clf_reference):
    hidden = matrix("00100 10001")
    mask = masks.hide_tokens(hidden)
    assert mask.shape == (2, 1, 1, 1, 5)
    expected = CAUSAL & ~hidden[:, None, None, None]
    assert torch.equal(seen(clf_reference.ours, texts(5, 5)[0], attn_mask=mask), expected.expand(2, L, H, 5, 5))


@pytest.mark.parametrize("hidden", [torch.zeros(2, 5), torch.zeros(5, dtype=torch.bool)], ids=["float", "one axis"])
def test_hide_tokens_refuses_another_type_or_shape(hidden):
    with pytest.raises(ValueError, match=r"hidden: expected bool \(B, T\), got"):
        masks.hide_tokens(hidden)


def test_combine_broadcasts():
    text, head = masks.hide_tokens(matrix("00100 10001")), torch.ones(1, 1, H, 1, 1, dtype=torch.bool)
    head[:, :, 2] = False
    both = masks.combine(text, head, masks.self_token(5))
    assert both.shape == (2, 1, H, 5, 5)
    assert not both[:, :, 2].any()
    assert torch.equal(both[1, 0, 3], matrix("00000 01000 00100 00010 00000"))


def test_combine_wants_a_mask():
    with pytest.raises(ValueError, match="at least one"):
        masks.combine()


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


@pytest.mark.parametrize("where", [{}, dict(layers=[1], heads=[(1, 1)])], ids=str)
def test_restrict_wants_layers_or_heads(tiny, where):
    with pytest.raises(ValueError, match="either layers or heads"):
        masks.restrict(masks.self_token(5), tiny, **where)


OUT_OF_RANGE = [
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
]


@pytest.mark.parametrize(("build", "message"), OUT_OF_RANGE, ids=[message for _, message in OUT_OF_RANGE])
def test_what_is_out_of_range_is_refused(tiny, build, message):
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
def test_an_intervention_does_to_a_batch_what_it_does_to_each_text(clf_reference, name):
    intervention, model = INTERVENTIONS[name][0], clf_reference.ours
    alone = [(IDS[i : i + 1, :n], LENGTHS[i : i + 1]) for i, n in enumerate(LENGTHS.tolist())]
    expected = torch.cat([model(*text, **intervention(*text)) for text in alone])
    assert difference(model(IDS, LENGTHS, **intervention(IDS, LENGTHS)), expected) < 1e-6


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
