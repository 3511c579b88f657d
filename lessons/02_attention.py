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
# Write down: how much of its attention does an average head pay to the *first* token of a text, whatever it says? If it
# looked at all alike, an eighth. And the sentence above goes on with *eyes*: does that need *She* or *tears* more?
#
# ## Try it

# %%
texts = read_texts(read_corpus("sample"), tokenizer, lm.config, truncate=False)["test"]
scores = []
for batch in bucketed(texts.sequences, texts.targets, batch_size=32):
    shares = choose_patterns(batch)  # which weights belong to a pattern: (B, T, T) each, query x key
    scores.append(sum_weights(lm.trunk, batch, [shares["first"], shares["previous"]]))  # of every head: (B, L, H, 2)
scores = torch.cat(scores).mean(dim=0).unbind(dim=-1)  # two of (L, H), the mean over 324 texts
trace = Trace("weights", "resid_pre", "resid_mid")
logits = lm(ids, trace=trace)
figure, panels = plt.subplots(1, 2, figsize=(9, 4.5), sharey=True, layout="constrained")
for panel, score, key in zip(panels, scores, ["first", "previous"], strict=True):
    layer, head = divmod(int(score.argmax()), H)
    panel.imshow(trace.weights[layer][0, head], cmap="Blues", vmin=0, vmax=1)
    panel.set(title=f"head {layer}.{head}: {score.max():.2f} to the {key} token", yticks=range(T), yticklabels=pieces)
    panel.set_xticks(range(T), pieces, rotation=60)
plt.show()  # query by key: each row says where a token looks in this sentence

# %% [markdown]
# **One head** owns D rows of each of the maps to queries, keys and values, and D columns of the map back. `allowed` is
# True or False, query x key; the causal mask is its lower triangle. Heads *add* to the stream, each on its own.


# %%
def attend(attn, x, head, allowed):
    """One head: x (T, C), normed, and allowed (T, T) -> its weights (T, T), and what it adds to the stream (T, C)."""
    own = slice(head * D, (head + 1) * D)
    maps = zip(attn.c_attn.weight.split(C), attn.c_attn.bias.split(C), strict=True)  # of queries, keys and values
    q, k, v = (x @ weight[own].T + bias[own] for weight, bias in maps)  # three of (T, D)
    weights = (q @ k.T / D**0.5).masked_fill(~allowed, -torch.inf).softmax(dim=-1)  # (T, T), each row sums to 1
    return weights, weights @ v @ attn.c_proj.weight[:, own].T


block, causal = lm.trunk.h[3], torch.ones(T, T, dtype=torch.bool).tril()
heads = [attend(block.attn, block.ln_1(trace.resid_pre[3][0]), head, causal) for head in range(H)]
added = sum(of_head for _, of_head in heads) + block.attn.c_proj.bias
differences = [torch.stack([weights for weights, _ in heads]) - trace.weights[3][0]]
differences += [added - (trace.resid_mid[3] - trace.resid_pre[3])[0]]

# %% [markdown]
# **Masks are arguments.** `attn_mask` acts before the softmax, so what is left sums to 1 again. `attn_gate` multiplies
# the weights behind it, a *cut*: nothing makes up for it. `masks.restrict` lets a mask act in some layers only.

# %%
TEARS, EYES, JOY = pieces.index(" tears"), tokenizer.encode(" eyes")[0], tokenizer.encode(" joy")[0]
with_joy = lm(ids.where(torch.arange(T) != TEARS, JOY))  # joy in the place of tears: do logits before it change?
she, tears = (masks.keys(T, [token]) & ~masks.self_token(T) for token in (0, TEARS))  # where later tokens see it
changes = {"nothing": {}, "tears masked in layers 2, 3": {"attn_mask": masks.restrict(~tears, lm.config, [2, 3])}}
changes["She masked from the last token"] = {"attn_mask": ~(she & masks.queries(T, [T - 1]))}
for word, seen in [("She", she), ("tears", tears)]:
    changes |= {f"{word} masked": {"attn_mask": ~seen}, f"{word} cut": {"attn_gate": (~seen).float()}}
last = trace.stacked("weights")[0, :, :, -1].mean(dim=(0, 1))  # (T,), where the last token looks, mean over heads
measured = {
    "mean head to the first token": scores[0].mean(),
    "all tokens alike": measure_base_rates(texts.sequences, windows=[lm.config.n_ctx])["first"].mean(),
    "largest difference from the model": max(difference.abs().max() for difference in differences),
    "joy: largest change before it": (with_joy - logits)[0, :TEARS].abs().max(),
    "last token to She": last[0],
    "last token to tears": last[TEARS],
    **{f"eyes, {name}": lm(ids, **change)[0, -1].softmax(dim=-1)[EYES] for name, change in changes.items()},
}
show(measured)

# %% [markdown]
# ## What came out
#
# | measured | value |
# |---|---|
# | mean head to the first token | 0.182 ± 0.002 |
# | all tokens alike | 0.119 ± 0.002 |
# | largest difference from the model | 0 ± 0.001 |
# | joy: largest change before it | 0 ± 0.001 |
# | last token to She | 0.233 ± 0.005 |
# | last token to tears | 0.148 ± 0.005 |
# | eyes, nothing | 0.539 ± 0.005 |
# | eyes, tears masked in layers 2, 3 | 0.202 ± 0.005 |
# | eyes, She masked from the last token | 0.182 ± 0.005 |
# | eyes, She masked | 0.478 ± 0.005 |
# | eyes, She cut | 0.085 ± 0.005 |
# | eyes, tears masked | 0.274 ± 0.005 |
# | eyes, tears cut | 0.048 ± 0.005 |
#
# First tokens get more than their share, 0.182, not 0.119. The token *her* looks at *She* more than at *tears* (0.233,
# 0.148), yet *tears* masked costs *eyes* more. How much *She* is needed has three answers: masked from all later tokens
# 0.478, from the last alone 0.182, cut 0.085. The way to take a token out is a part of the finding.
#
# ## What it does not mean
#
# - Attention weights are not importance. They say where a head looks, not what the value says or who needs it.
# - After a cut a head also emits less than usual. Some of the damage may come from that, not from the missing word.
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
