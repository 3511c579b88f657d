# %% [markdown]
# # 6. Where does it come from: patching between two sentences
#
# ## What you will know
#
# How to find the places that carry a difference between two sentences, and when to distrust a quick estimate.
#
# ## The idea
#
# "When the boy came into the room, we all looked at **him**." "When the girl came into the room, we all looked at
# **her**." They differ in one word; nine tokens later the answer differs. Something carries it there. Think of two
# houses wired alike, one lit, one dark. Swap one cable at a time: a cable that brings light lies on the way.
#
# **Activation patching**: run the *clean* sentence (boy) and the *corrupt* one (girl) and keep what they compute. Then
# run one again, the **base**, with one activation of the other run. The **metric** is the logit of *him* minus that of
# *her* (probabilities level off near 0 and 1), the **gap** its difference between the runs. How far does it move?
# - **denoise**: base corrupt, one piece of clean. 0: nothing comes back; 1: the whole gap. What is near 1 *suffices*.
# - **noise**: base clean, one piece of corrupt. 0: nothing is lost; 1: the whole gap. What is near 1 is *needed*.

# %%
import matplotlib.pyplot as plt
import torch

from experiments.patch.cells import Metric, patch_cells, record
from experiments.patch.estimates import estimate_cells
from experiments.patch.measure import list_cells
from experiments.patch.pairs import make_prompts
from lessons.checks import show
from lessons.checks.patching import check_1, check_2
from model import Tokenizer, load_lm

lm, tokenizer = load_lm("gpt2-mini").requires_grad_(False), Tokenizer.load("gpt2-mini")  # weights need no gradient
text, answers = "When the {} came into the room, we all looked at", (" him", " her")
nouns = ("boy", "girl"), ("man", "woman"), ("father", "mother"), ("brother", "sister"), ("uncle", "aunt")
pairs = [make_prompts(lm, tokenizer, text.format(man), text.format(woman), answers) for man, woman in nouns]
word, tokens = pairs[0].positions[0], [tokenizer.decode([token]) for token in pairs[0].clean_ids]

# %% [markdown]
# ## Predict
#
# Before layer 0 the two runs differ at the noun only; what leaves layer 5 at the last token decides. Behind which layer
# has the difference arrived there? Bit by bit or at once? How many of the 48 heads does it take?
#
# ## Try it
#
# By hand, for one pair: in a copy of the stream that enters a layer, the noun's vector is the other run's, and
# `trunk.run(x, layer)` goes on from there. `patch_cells` does so for many **cells** in one batch: the stream before a
# layer (`resid_pre`) or what an MLP adds (`mlp`), at one token each; the output of one head (`z`), at all tokens.

# %%
metric = Metric.between(lm, pairs[0].answers)  # reads the stream at the last token
clean, corrupt = record(lm.trunk, pairs[0].clean_ids), record(lm.trunk, pairs[0].corrupt_ids)
top, bottom = metric.read(clean.resid_pre[-1]), metric.read(corrupt.resid_pre[-1])
for layer in range(lm.config.n_layer):
    x = corrupt.resid_pre[layer].clone()  # (1, T, C)
    x[:, word] = clean.resid_pre[layer][:, word]
    share = (metric.read(lm.trunk.run(x, layer)) - bottom) / (top - bottom)
    print(f"the noun before layer {layer}: {share.item():.2f} of the gap comes back")


def patch(pair, kind, direction):
    """The effect of each cell as a share of the gap: (L, T), or (L, H) for heads."""
    clean, corrupt = record(lm.trunk, pair.clean_ids), record(lm.trunk, pair.corrupt_ids)
    top, bottom = metric.read(clean.resid_pre[-1]), metric.read(corrupt.resid_pre[-1])
    base, source = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    cells = list_cells(lm.config, len(pair.clean_ids), [kind], positions=False)  # a head: all positions together
    patched = patch_cells(metric, base, source, cells, tokens=4096)  # the metric; 4096 tokens in one batch at most
    moved = patched - bottom if direction == "denoise" else top - patched
    return (moved / (top - bottom)).view(lm.config.n_layer, -1)


def estimate_noise(pair, kind):
    """*Attribution patching*: gradient at the clean run, times the difference; all cells in one backward pass."""
    clean, corrupt = record(lm.trunk, pair.clean_ids), record(lm.trunk, pair.corrupt_ids)
    gap = metric.read(clean.resid_pre[-1]) - metric.read(corrupt.resid_pre[-1])
    return -estimate_cells(metric, pair.clean_ids, corrupt)[kind] / gap  # minus: a fall is a loss; (L, T), or (L, H, T)


def mean(effect, *arguments):
    return torch.stack([effect(pair, *arguments) for pair in pairs]).mean(dim=0)


stream, heads, mlps = (mean(patch, kind, "denoise") for kind in ("resid_pre", "z", "mlp"))
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
for axes, effects, what in ((left, stream, "the stream at a token, before the layer"), (right, heads, "head")):
    image = axes.imshow(effects, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    axes.set(title="share of the gap that comes back", xlabel=what, ylabel="layer")
left.set_xticks(range(len(tokens)), tokens, rotation=60, ha="right")
figure.colorbar(image, ax=[left, right])
plt.show()
measured = {
    "noun, before layer 4": stream[4, word],
    "noun, before layer 5": stream[5, word],
    "last token, before layer 5": stream[5, -1],
    "head (4, 3)": heads[4, 3],
    "strongest of the other 47 heads": heads.flatten().topk(2).values[1],
    "MLP 0 at the noun": mlps[0, word],
    "MLP 2 at the noun": mlps[2, word],
    "MLP 2 at the noun, noise": mean(patch, "mlp", "noise")[2, word],
    "head (4, 3), noise": mean(patch, "z", "noise")[4, 3],
    "head (4, 3), estimate of noise": mean(estimate_noise, "z").sum(dim=-1)[4, 3],
    "noun, before layer 0: estimate of noise": mean(estimate_noise, "resid_pre")[0, word],
}
show(measured)

# %% [markdown]
# ## What came out
#
# | measured, mean over the five pairs | value |
# |---|---|
# | noun, before layer 4 | 0.83 ± 0.01 |
# | noun, before layer 5 | 0.02 ± 0.01 |
# | last token, before layer 5 | 0.92 ± 0.01 |
# | head (4, 3) | 0.84 ± 0.01 |
# | strongest of the other 47 heads | 0.19 ± 0.01 |
# | MLP 0 at the noun | 1.00 ± 0.01 |
# | MLP 2 at the noun | 0.35 ± 0.01 |
# | MLP 2 at the noun, noise | 0.22 ± 0.01 |
# | head (4, 3), noise | 0.80 ± 0.01 |
# | head (4, 3), estimate of noise | 0.92 ± 0.01 |
# | noun, before layer 0: estimate of noise | 0.35 ± 0.01 |
#
# For four layers little leaves the noun (0.83). Then a leap: behind layer 4 it has 0.02, the last token 0.92. One head
# of 48 brings back 0.84, the next 0.19. But MLP 0 alone brings back all (1.00): later layers read what it wrote. Do not
# add shares: each asks for one place alone. And directions differ: MLP 2 brings back 0.35, but taking it away loses
# 0.22: it counts less where others say the noun, too. The estimate is near for head (4, 3), 0.92 for 0.80, but 0.35 for
# the noun before layer 0, where the truth is 1 (only there the runs differ): a gradient sees a small step.
#
# ## What it does not mean
#
# - Head (4, 3) carries *this* difference in *this* sentence. Others may take other ways, and it may carry other things.
# - A place that suffices need not be the only one. A patched run mixes two texts as no real text does.
#
# ## Exercises
#
# **1.** Pencil and paper: the metric is 6 in the clean run, -2 in the corrupt one, and 1 in the clean run with one cell
# of the corrupt one. What is the effect of the cell (noise), as a share of the gap?

# %%
answer_1 = None
check_1(answer_1)

# %% [markdown]
# **2.** A head emits `gate * z + (1 - gate) * fill`; gate 1 patches nothing. Write `answer_2 = f`: of two traces of
# `record`, `f(clean, corrupt, layer, head, position)` returns a dict of `head_gate` (1, L, H, T) and `head_fill`,
# shaped as `clean.stacked("z")`. In `lm(corrupt_ids, **f(...))` one head at one token then emits what it did in clean.

# %%
answer_2 = None
check_2(answer_2)
