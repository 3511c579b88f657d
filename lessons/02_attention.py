# %% [markdown]
# # 2. Attention: one head, many heads, masks
#
# ## What you will know
#
# How a head works, why it may not look ahead, and how masks and gates hide a token from it. You need lesson 1.
#
# ## The idea
#
# Imagine a queue of people. Each has a question in mind, the **query**, wears a badge, the **key**, and holds a note,
# the **value**. Each compares the question with the badges of those who came before, and with the own one. The better a
# badge fits, the larger the share of that note in what is taken home. A badge need not tell what the note says.
#
# The **softmax** turns T scores into T shares: exponentials, divided by their sum. They are positive and sum to 1, so a
# head with nothing to do must still look somewhere. **Causal** means that nobody sees those who come later. The network
# learns to guess the next token at every place at once; with later tokens in sight it would copy the answer. **Several
# heads** ask several questions: one that looks half here and half there brings home a blur of both.

# %%
import matplotlib.pyplot as plt
import torch

from data import bucketed, read_corpus
from experiments.attend.patterns import choose_patterns, measure_base_rates
from experiments.attend.weights import sum_weights
from lab.texts import read_texts
from lessons.checks import show
from lessons.checks.attention import check_1, check_2
from model import Tokenizer, Trace, load_lm, masks

torch.set_grad_enabled(False)  # nothing is trained here
lm, tokenizer = load_lm("gpt2-mini"), Tokenizer.load("gpt2-mini")  # 6 layers, 8 heads, trained on old English novels
ids = torch.tensor([tokenizer.encode("She looked at him with tears in her")])
pieces = [tokenizer.decode([token]) for token in ids[0].tolist()]
T, C, H, D = ids.shape[1], lm.config.n_embd, lm.config.n_head, lm.config.head_width

# %% [markdown]
# ## Predict
#
# Write down: how much of its attention does an average head pay to the *first* token of a text, whatever it says? Heads
# that look at all tokens alike would pay a half from the second token, a third from the third, and so on: about an
# eighth over our texts. And the sentence above goes on with *eyes*: does that need *She* or *tears* more?
#
# ## Try it

# %%
texts = read_texts(read_corpus("sample"), tokenizer, lm.config, truncate=False)["test"]
batches = bucketed(texts.sequences, texts.targets, batch_size=32)
of_texts = [sum_weights(lm.trunk, batch, [choose_patterns(batch)["first"]]) for batch in batches]  # (B, L, H, 1) each
to_first = torch.cat(of_texts).mean(dim=0)[..., 0]  # (L, H), the mean over 324 texts
trace = Trace("weights", "resid_pre", "resid_mid")
lm(ids, trace=trace)
layer, head = divmod(int(to_first.argmax()), H)
axes = plt.figure(layout="constrained").gca()
axes.imshow(trace.weights[layer][0, head], cmap="Blues", vmin=0, vmax=1)
axes.set(title=f"head ({layer}, {head}), {to_first.max():.2f} to the first token", yticks=range(T), yticklabels=pieces)
axes.set_xticks(range(T), pieces, rotation=60)
plt.show()  # query by key: each row says where a token looks

# %% [markdown]
# **One head** owns D rows of each of the maps to queries, keys and values, and D columns of the map back. `allowed` is
# True or False, query x key; the causal mask is its lower triangle. Heads *add* to the stream, each on its own.


# %%
def attend(attn, x, head, allowed):
    """What one head adds to the stream, (T, C); x (T, C), normed, and allowed (T, T)."""
    own = slice(head * D, (head + 1) * D)
    maps = zip(attn.c_attn.weight.split(C), attn.c_attn.bias.split(C), strict=True)  # of queries, keys and values
    q, k, v = (x @ weight[own].T + bias[own] for weight, bias in maps)  # three of (T, D)
    scores = (q @ k.T / D**0.5).masked_fill(~allowed, -torch.inf)  # (T, T)
    return scores.softmax(dim=-1) @ v @ attn.c_proj.weight[:, own].T  # each row of the softmax sums to 1


def read_eyes(ids, **change):
    return lm(ids, **change)[0, -1].softmax(dim=-1)[tokenizer.encode(" eyes")[0]]  # the probability of eyes


block, causal = lm.trunk.h[3], torch.ones(T, T, dtype=torch.bool).tril()
added = sum(attend(block.attn, block.ln_1(trace.resid_pre[3][0]), head, causal) for head in range(H))
difference = added + block.attn.c_proj.bias - (trace.resid_mid[3] - trace.resid_pre[3])[0]

# %% [markdown]
# **Masks are arguments.** `attn_mask` acts before the softmax, so what is left sums to 1 again. `attn_gate` multiplies
# the weights behind it, a *cut*: nothing makes up for it, so heads emit less. Both hide a token from the last one here,
# where *eyes* is read. The control hides nothing: another word stands in the token's place.

# %%
last = trace.stacked("weights")[0, :, :, -1].mean(dim=(0, 1))  # (T,), where the last token looks, mean over heads
measured = {
    "mean head to the first token": to_first.mean(),
    "all tokens alike": measure_base_rates(texts.sequences, windows=[lm.config.n_ctx])["first"].mean(),
    "largest difference from the model": difference.abs().max(),
    "eyes": read_eyes(ids),
}
for word, place, other in [("She", 0, "He"), ("tears", pieces.index(" tears"), " joy")]:
    seen = masks.keys(T, [place]) & masks.queries(T, [T - 1])  # True where the last token looks at the word
    measured |= {
        f"last token to {word}": last[place],
        f"eyes, {word} masked": read_eyes(ids, attn_mask=~seen),
        f"eyes, {word} cut": read_eyes(ids, attn_gate=(~seen).float()),
        f"eyes, {other.strip()} for {word}": read_eyes(ids.where(torch.arange(T) != place, tokenizer.encode(other)[0])),
    }
show(measured)

# %% [markdown]
# ## What came out
#
# | measured | value |
# |---|---|
# | mean head to the first token | 0.179 ± 0.002 |
# | all tokens alike | 0.119 ± 0.002 |
# | largest difference from the model | 0 ± 0.001 |
# | eyes | 0.904 ± 0.005 |
# | last token to She | 0.229 ± 0.005 |
# | eyes, She masked | 0.100 ± 0.005 |
# | eyes, She cut | 0.040 ± 0.005 |
# | eyes, He for She | 0.904 ± 0.005 |
# | last token to tears | 0.138 ± 0.005 |
# | eyes, tears masked | 0.256 ± 0.005 |
# | eyes, tears cut | 0.276 ± 0.005 |
# | eyes, joy for tears | 0.533 ± 0.005 |
#
# First tokens get more than their share, 0.179, not 0.119. The last token, *her*, looks at *She* more than at *tears*
# (0.229, 0.138); masked, *She* leaves *eyes* less (0.100, 0.256); cut, too (0.040, 0.276). So far attention tells what
# is needed. Yet the *word* She is not: *He* in its place leaves *eyes* what it had (0.904), *joy* for *tears* does not
# (0.533). It seems that *her* needs a first token to look at, whatever that says.
#
# ## What it does not mean
#
# - That attention tells which word counts. It says where a head looks, not what it brings home, nor what else would do.
# - That *eyes* needs *She* in sight. Mask it from all, by `masks.keys(T, [0]) & ~masks.self_token(T)`: little is lost.
#   A lone token without it may be what training never showed, which is a guess. And this is one sentence.
#
# ## Exercises
#
# **1.** Write a function of `T` and `w` that returns a causal mask with a window, bool (T, T), query x key, True = may
# look: each query sees the last `w` keys up to itself, or all where there are fewer. Give the function, uncalled.

# %%
answer_1 = None
check_1(answer_1)

# %% [markdown]
# **2.** A query has the weights 1/2, 3/10 and 1/5 on three keys, whose values are the numbers 6, 1 and 3. The first
# key is hidden. What does the head emit if it is masked, what if it is cut? Give a pair: `(masked, cut)`.

# %%
answer_2 = None
check_2(answer_2)
