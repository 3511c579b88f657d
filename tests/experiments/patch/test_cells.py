"""Activation patching against hooks in `transformers`, cell by cell, and against what follows from the definition."""

from itertools import groupby

import pytest
import torch
from hooked import ALL, ANSWERS, SOME, Pair, find_merge, hooked, on_input, patch
from tiny import C, D, H, L, T, difference

from experiments.patch.cells import (
    HEAD_KINDS,
    KINDS,
    Cell,
    Metric,
    find_first_change,
    has_no_effect,
    mix_z,
    patch_cells,
    patch_streams,
    patch_subspaces,
    record,
)

PAIRS = [texts if forth else texts[::-1] for texts in (SOME, ALL) for forth in (True, False)]


def heads_of(kind):
    return range(H) if kind in HEAD_KINDS else (None,)


def all_cells():
    """Every cell, by kind, layer, head and position, the last of which is all positions."""
    positions = [*range(T), None]
    return [Cell(k, layer, h, p) for k in KINDS for layer in range(L) for h in heads_of(k) for p in positions]


def runs(metric, texts):
    return [record(metric.trunk, ids) for ids in texts]


@pytest.mark.parametrize("texts", PAIRS)
def test_each_cell_is_what_hooks_make_of_it(network, metric, texts):
    pair = Pair(network.hf, *texts, ANSWERS)
    by_kind = [torch.cat([patch(pair, k, layer, h) for layer in range(L) for h in heads_of(k)]) for k in KINDS]
    got = patch_cells(metric, *runs(metric, texts), all_cells(), tokens=500)
    assert difference(got, torch.cat(by_kind)) < 1e-5


def test_each_subspace_is_what_hooks_make_of_it(network, metric):
    """A random one, of all heads' outputs side by side, and a head, whose z it is."""
    generator, pair = torch.Generator().manual_seed(0), Pair(network.hf, *ALL, ANSWERS)
    bases = [torch.linalg.qr(torch.randn(C, D, generator=generator))[0] for _ in range(4)]
    subspaces, expected = [(2, bases[0]), (0, bases[1]), (2, bases[2]), (1, bases[3])], []
    for layer, basis in subspaces:
        part = (pair.of_source["z"][layer] - pair.of_base["z"][layer]) @ basis @ basis.T
        with hooked(on_input(find_merge(network.hf.transformer.h[layer]), lambda z, part=part: z + part)):
            expected.append(pair.read())
    got = patch_subspaces(metric, *runs(metric, ALL), subspaces, tokens=2 * T)
    assert difference(got, torch.cat(expected)) < 1e-5
    heads = [(layer, torch.eye(C)[:, head * D : (head + 1) * D]) for layer in range(L) for head in range(H)]
    got = patch_subspaces(metric, *runs(metric, ALL), heads, tokens=500)
    cells = [Cell("z", layer, head) for layer in range(L) for head in range(H)]
    assert difference(got, patch_cells(metric, *runs(metric, ALL), cells, tokens=500)) < 1e-5


def test_texts_of_different_lengths_are_refused(metric):
    short, long = runs(metric, [SOME[0][:-1], SOME[1]])
    with pytest.raises(ValueError, match="expected two texts of as many tokens, got 10 and 11"):
        patch_cells(metric, short, long, [Cell("attn", 0, None, 3)], tokens=500)


def test_the_first_change_is_found(metric):
    base, later = runs(metric, SOME)
    assert [find_first_change(base, later), find_first_change(base, base)] == [3, T]
    assert find_first_change(*runs(metric, ALL)) == 0


@torch.no_grad()
def finish_all(metric, base, source, cells):
    """The metric with each cell patched, none skipped; cells in the order of all_cells."""
    alike = [list(group) for _, group in groupby(cells, key=lambda cell: (cell.kind, cell.layer))]
    streams = [(patch_streams(metric.trunk, base, source, group), group[0].entry) for group in alike]
    return torch.cat([metric.finish(*stream) for stream in streams])


def test_a_text_patched_into_itself_changes_nothing(metric):
    base, _ = runs(metric, SOME)
    plain = metric.read(base.resid_pre[-1])
    got = finish_all(metric, base, base, all_cells())
    assert difference(got, plain.expand(len(got))) < 1e-5
    assert torch.equal(patch_cells(metric, base, base, all_cells(), tokens=500), plain.expand(len(got)))


@pytest.mark.parametrize("texts", PAIRS)
def test_cells_that_are_skipped_have_no_effect(metric, texts):
    base, source = runs(metric, texts)
    first = find_first_change(base, source)
    skipped = [cell for cell in all_cells() if has_no_effect(cell, first, T, L)]
    # Of the last layer, the keys and values of all positions are read, and the rest only at the last.
    read_at_the_end_alone = sum(len(heads_of(kind)) for kind in KINDS if kind not in ("resid_pre", "k", "v"))
    every_column = sum(len(heads_of(kind)) for kind in KINDS) * L
    assert len(skipped) == every_column * first + read_at_the_end_alone * (T - 1 - first)
    got = finish_all(metric, base, source, skipped)
    assert difference(got, metric.read(base.resid_pre[-1]).expand(len(got))) < 1e-5


@pytest.mark.parametrize("texts", PAIRS)
def test_the_whole_stream_of_a_layer_makes_the_other_run(metric, texts):
    base, source = runs(metric, texts)
    got = patch_cells(metric, base, source, [Cell("resid_pre", layer) for layer in range(L + 1)], tokens=500)
    assert difference(got, metric.read(source.resid_pre[-1]).expand(L + 1)) < 1e-4  # of a small difference of logits


@pytest.mark.parametrize("texts", PAIRS)
def test_all_heads_and_mlps_make_the_other_run_but_for_the_embedding(metric, texts):
    base, source = runs(metric, texts)
    heads = {"head_gate": torch.zeros(1, 1, 1, 1), "head_fill": source.stacked("z")}
    mlps = {"mlp_gate": torch.zeros(1, 1, 1), "mlp_fill": source.stacked("mlp")}
    got = metric.trunk.run(base.resid_pre[0], **heads, **mlps)
    assert difference(got, source.resid_pre[-1] + base.resid_pre[0] - source.resid_pre[0]) < 1e-5
    if texts[0][-1] == texts[1][-1]:  # then the last token's MLPs follow from the heads
        got = metric.trunk.run(base.resid_pre[0], **heads)
        assert difference(metric.read(got), metric.read(source.resid_pre[-1])) < 1e-5


def test_what_makes_up_z_and_the_pattern_makes_them(metric):
    base, source = runs(metric, ALL)
    heads, everywhere = torch.arange(H), torch.ones(H, T, dtype=torch.bool)
    for layer in range(L):
        with torch.no_grad():
            z = {
                kinds: mix_z(metric.trunk.h[layer].attn, base, source, layer, heads, everywhere, {*kinds.split()})
                for kinds in ("pattern v", "q k v", "q k", "pattern", "v")
            }
        assert difference(z["pattern v"], source.z[layer][0]) < 1e-5
        assert difference(z["q k v"], source.z[layer][0]) < 1e-5
        assert difference(z["q k"], z["pattern"]) < 1e-5
        assert difference(z["v"], (base.weights[layer] @ source.v[layer])[0]) < 1e-5


@pytest.mark.parametrize("texts", PAIRS)
def test_attention_is_all_its_heads(metric, texts):
    """With the arguments of the forward pass: the heads at one position closed, and filled with the other run's."""
    base, source = runs(metric, texts)
    for layer in range(L):
        gate = torch.ones(T, L, H, T)
        gate[range(T), layer, :, range(T)] = 0
        x = base.resid_pre[0].expand(T, T, C)
        got = metric.read(metric.trunk.run(x, head_gate=gate, head_fill=source.stacked("z")))
        cells = [Cell("attn", layer, None, position) for position in range(T)]
        assert difference(patch_cells(metric, base, source, cells, tokens=500), got) < 1e-5


def test_what_adds_up_to_the_last_tokens_stream_makes_it(metric):
    """resid_pre and attn make resid_mid, and with mlp the next resid_pre; no other token reads the last one."""
    base, source = runs(metric, ALL)
    last = torch.arange(T) == T - 1
    for layer in range(L):
        x = torch.where(last[:, None], source.resid_pre[layer], base.resid_pre[layer])
        heads = {"head_gate": torch.ones(1, L, 1, T), "head_fill": source.stacked("z")}
        heads["head_gate"][:, layer, :, -1] = 0
        mlp = {"mlp_gate": torch.ones(1, L, T), "mlp_fill": source.stacked("mlp")}
        mlp["mlp_gate"][:, layer, -1] = 0
        got = torch.cat([metric.read(metric.trunk.run(x, layer, **gates)) for gates in (heads, heads | mlp)])
        cells = [Cell("resid_mid", layer, None, T - 1), Cell("resid_pre", layer + 1, None, T - 1)]
        assert difference(patch_cells(metric, base, source, cells, tokens=500), got) < 1e-5


def test_answers_swapped_turn_the_sign(network):
    cells = all_cells()[:: 2 * T + 1]
    one, other = (Metric.between(network.ours, answers) for answers in (ANSWERS, ANSWERS[::-1]))
    got = [patch_cells(metric, *runs(metric, SOME), cells, tokens=500) for metric in (one, other)]
    assert difference(got[0], -got[1]) < 1e-5


def test_the_batching_and_the_order_do_not_matter(metric):
    base, source = runs(metric, SOME)
    cells = all_cells()[:: T // 2]
    shuffled = torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))
    expected = patch_cells(metric, base, source, cells, tokens=1)
    for tokens in (3 * T, 10**6):
        got = patch_cells(metric, base, source, [cells[i] for i in shuffled], tokens)
        assert difference(got, expected[shuffled]) < 1e-5


def test_no_batch_has_more_tokens_than_allowed(metric, monkeypatch):
    base, source = runs(metric, SOME)
    sizes, finish = [], Metric.finish
    monkeypatch.setattr(Metric, "finish", lambda self, x, start: sizes.append(len(x)) or finish(self, x, start))
    cells = all_cells()
    patch_cells(metric, base, source, cells, tokens=7 * T + 5)
    assert max(sizes) == 7
    assert sum(sizes) == sum(not has_no_effect(cell, 3, T, L) for cell in cells)
