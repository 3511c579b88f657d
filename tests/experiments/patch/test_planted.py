"""Patching in small classifiers of which it is known which heads pass on what, and by which way.

The text is START . word . RELAY . . END, and the word, `a` or `b`, is the class. Head 0.1 writes which word it is into
a channel, and head 1.2, at END, answers. Head 0.2 looks at the word as well, and writes where nobody reads."""

from itertools import product

import pytest
import torch

from experiments.patch.cells import Cell, Metric, patch_cells, record
from experiments.patch.estimates import estimate_cells, look_up
from experiments.patch.paths import edges_into, list_nodes, patch_edges
from model import GPT2Classifier, GPT2Config

L, H, D, C = 2, 3, 7, 21
START, FILLER, A, B, RELAY, END = range(6)
TEXTS = [[START, FILLER, word, FILLER, RELAY, FILLER, FILLER, END] for word in (A, B)]
T = len(TEXTS[0])
# Channels are pairs of dimensions, one the other's negative. LayerNorm then centres nothing, and scales a text about
# `a` as it scales one about `b`.
WORD, MARK, OTHER_MARK, ANSWER, WASTE = 0, 2, 4, 6, 8
IS_WORD, IS_START, IS_RELAY, IS_END, IS_FILLER = 10, 12, 14, 16, 18
AT_RELAY, AT_END = 4, 7  # positions


def blank():
    """A classifier in which each token stands in its channels, the score reads ANSWER, and no head does anything."""
    clf = GPT2Classifier(GPT2Config(L, H, C, n_ctx=T, vocab_size=6, dropout=0.0, attn_dropout=0.0), ["a", "b"]).eval()
    for name, parameter in clf.named_parameters():
        torch.nn.init.constant_(parameter, float("ln_" in name and name.endswith("weight")))
    words = {A: {WORD: 1, IS_WORD: 1}, B: {WORD: -1, IS_WORD: 1}}
    others = {START: {IS_START: 1}, FILLER: {IS_FILLER: 1}, RELAY: {IS_RELAY: 1}, END: {IS_END: 1}}
    for token, channels in (words | others).items():
        for channel, value in channels.items():
            clf.trunk.wte.weight.data[token, channel : channel + 2] = value * torch.tensor([1.0, -1])
    clf.score.weight.data[:, ANSWER] = torch.tensor([1.0, -1])
    return clf


def attend(clf, layer, head, queries, keys):
    """Let a head look from where `queries` are large to where `keys`, weights by channel, are; else to START."""
    attn = clf.trunk.h[layer].attn
    q, k = head * D, C + head * D
    attn.c_attn.bias.data[q] = attn.c_attn.weight.data[k, IS_START] = 4
    attn.c_attn.weight.data[q + 1, queries] = 4
    for channel, weight in keys.items():
        attn.c_attn.weight.data[k + 1, channel] = 4 * weight


def write(clf, layer, head, values, channel, size=1.0):
    """Let a head write what it reads from `values`, weights by channel, to a channel."""
    attn = clf.trunk.h[layer].attn
    for source, weight in values.items():
        attn.c_attn.weight.data[2 * C + head * D, source] = weight
    attn.c_proj.weight.data[channel : channel + 2, head * D] = size * torch.tensor([1.0, -1])


def mark(clf, head, channel, at, size=1.0):
    """Let a head of the first layer write `size` for `a` and minus that for `b`, at one token."""
    attend(clf, 0, head, at, {IS_WORD: 1})
    write(clf, 0, head, {WORD: 1}, channel, size * (4 / C) ** 0.5)  # four of the word's dimensions are 1 or -1


def chain(through, size=1.0):
    """Head 1.2 reads the mark by its values, its keys, or its queries. The smaller, the less LayerNorm bends."""
    clf = blank()
    mark(clf, 1, MARK, IS_END if through == "q" else IS_RELAY, size)
    mark(clf, 2, WASTE, IS_END, size)  # the decoy
    if through == "v":
        attend(clf, 1, 2, IS_END, {IS_RELAY: 1})
        write(clf, 1, 2, {MARK: 1}, ANSWER)
    elif through == "k":  # it looks at RELAY or at START, and answers where
        attend(clf, 1, 2, IS_END, {MARK: 1 / size})
        write(clf, 1, 2, {IS_RELAY: 1, IS_START: -(0.5**0.5)}, ANSWER, size)  # of four dimensions, and of two
    else:
        attend(clf, 1, 2, MARK, {IS_RELAY: 1 / size})
        write(clf, 1, 2, {IS_RELAY: 1, IS_START: -1}, ANSWER, size)
    return clf


def gate(threshold):
    """Heads 0.0 and 0.1 mark the word; head 1.2 looks at RELAY if the marks' sum is above the threshold."""
    clf = blank()
    mark(clf, 0, OTHER_MARK, IS_RELAY)
    mark(clf, 1, MARK, IS_RELAY)
    mark(clf, 2, WASTE, IS_END)
    attend(clf, 1, 2, IS_END, {MARK: 1, OTHER_MARK: 1, IS_RELAY: -threshold})
    write(clf, 1, 2, {IS_RELAY: 1, IS_START: -1}, ANSWER)
    return clf


class Swap:
    """The base run of one text, and the source run of the other."""

    def __init__(self, clf, base, source):
        self.metric, self.ids = Metric.between(clf, (0, 1)), TEXTS[base]
        self.base, self.source = (record(clf.trunk, TEXTS[i]) for i in (base, source))
        self.plain = self.metric.read(self.base.resid_pre[-1]).item()
        self.gap = self.metric.read(self.source.resid_pre[-1]).item() - self.plain
        self.config = clf.config
        assert abs(self.gap) > 0.5

    def cells(self, *kinds):
        """Every cell whose effect is more than 1 % of the gap, and that share."""
        heads = [None] if kinds[0].startswith("resid") else range(H)
        cells = [Cell(*place) for place in product(kinds, range(L), heads, range(T))]
        patched = patch_cells(self.metric, self.base, self.source, cells, tokens=1000)
        return self.large({(cell.layer, cell.head, cell.position): x for cell, x in zip(cells, patched, strict=True)})

    def edges(self, layer_norm="recomputed"):
        edges = [edge for receiver in list_nodes(self.config)[1:] for edge in edges_into(receiver, self.config)]
        patched = patch_edges(self.metric, self.base, self.source, edges, layer_norm, tokens=1000)
        names = [(str(edge.sender), str(edge.receiver), edge.input) for edge in edges]
        return self.large(dict(zip(names, patched, strict=True)))

    def large(self, patched):
        shares = {place: (float(value) - self.plain) / self.gap for place, value in patched.items()}
        return {place: pytest.approx(share, abs=1e-3) for place, share in shares.items() if abs(share) > 0.01}


@pytest.mark.parametrize(("base", "source"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("through", ["v", "k", "q"])
def test_a_chain_of_two_heads_is_all_there_is(through, base, source):
    swap = Swap(chain(through), base, source)
    marked_at = AT_END if through == "q" else AT_RELAY
    assert swap.cells("z") == {(0, 1, marked_at): 1, (1, 2, AT_END): 1}
    assert swap.cells("resid_pre") == {(0, None, 2): 1, (1, None, marked_at): 1}
    assert swap.cells("resid_mid") == {(0, None, marked_at): 1, (1, None, AT_END): 1}
    ways = [("embedding", "head 0.1", "v"), ("head 0.1", "head 1.2", through), ("head 1.2", "logits", "logits")]
    assert swap.edges() == dict.fromkeys(ways, 1)
    assert swap.edges("frozen") == dict.fromkeys(ways, 1)


def test_the_decoy_tells_the_words_apart():
    """So that it has no effect is no matter of course."""
    swap = Swap(chain("v"), 0, 1)
    z = swap.base.z[0][0, 2, AT_END]
    assert (z - swap.source.z[0][0, 2, AT_END]).abs().max() > 2
    assert z.abs().max() == pytest.approx(swap.base.z[0][0, 1, AT_RELAY].abs().max().item())


@pytest.mark.parametrize(("threshold", "base", "source"), [(-1, 1, 0), (1, 0, 1)], ids=["either", "both"])
def test_one_direction_sees_what_suffices_and_the_other_what_is_needed(threshold, base, source):
    """Either head is enough for `a`: put into a text about `b` each of them shows, taken from one about `a` neither.
    Where both are needed it is the other way round."""
    seen, hidden = Swap(gate(threshold), base, source), Swap(gate(threshold), source, base)
    answer = {(1, 2, AT_END): 1}
    assert seen.cells("z") == {(0, 0, AT_RELAY): 1, (0, 1, AT_RELAY): 1} | answer
    assert hidden.cells("z") == answer
    ways = {(f"head 0.{head}", "head 1.2", "k") for head in (0, 1)}
    assert ways & seen.edges().keys() == ways
    assert not ways & hidden.edges().keys()


def test_a_saturated_softmax_hides_a_head_from_the_estimate():
    """By values the estimate is right; by keys the gradient is 0 where the patch does all (Kramár et al. 2024)."""
    shares = {}
    for through in ("v", "k"):
        swap = Swap(chain(through, size=0.05), 0, 1)
        estimates = estimate_cells(swap.metric, swap.ids, swap.source)
        shares[through] = [look_up(estimates, Cell("z", *place)) / swap.gap for place in product(range(L), range(H))]
    assert shares["v"] == pytest.approx([0, 1, 0, 0, 0, 1], abs=0.05)
    assert shares["k"] == pytest.approx([0, 0, 0, 0, 0, 1], abs=0.05)
