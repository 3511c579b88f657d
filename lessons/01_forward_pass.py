# %% [markdown]
# # 1. The forward pass: from token to logit
#
# ## What you will know
#
# How GPT-2 turns a sentence into the probabilities of the next word, which shapes lie on the way, and where each line
# of it stands in `model/gpt2.py` and `model/readout.py`. You need linear algebra and some PyTorch.
#
# ## The idea
#
# A language model reads **tokens**, words or pieces of words, and says after each of them which token comes next.
# GPT-2 gives each token a vector, its **residual stream**. A **block** reads all these vectors and *adds* to each:
# attention adds what it found in the tokens so far, an MLP adds what it made of the vector itself. After the last
# block, the vector of the last token is multiplied with the vector of every token of the vocabulary. Each product is a
# **logit**: the larger, the likelier that token comes next. The **softmax** makes probabilities of logits.
# Letters, as in the code: B texts, T tokens, L blocks (also called layers), H heads of attention, D numbers in a head,
# C = H · D numbers in a vector, V tokens in the vocabulary. Blocks and heads are counted from 0.

# %%
import torch
from torch.nn import functional as F

from lessons.checks import show
from lessons.checks.forward_pass import check_1, check_2
from model import Tokenizer, load_lm

torch.set_grad_enabled(False)  # nothing is trained here
tokenizer, lm = Tokenizer.load("gpt2-mini"), load_lm("gpt2-mini")  # 6 blocks of 8 heads, trained on old novels
trunk, config = lm.trunk, lm.config
ids = torch.tensor([tokenizer.encode("She looked at him with tears in her")])  # (B, T) = (1, 8)
print([tokenizer.decode([token]) for token in ids[0].tolist()])

# %% [markdown]
# ## Predict
#
# Write down, before you run on: which word comes next, and which probability does a small network give it? After how
# many of its 6 blocks would it first name that word, if you read its vector there as if the network ended?
#
# ## Try it
#
# Open `model/gpt2.py` beside this page; its first lines say what to skip. **`GPT2.embed`** adds two rows of tables, one
# for the token (`wte`), one for its place (`wpe`).

# %%
T, C, H, D = ids.shape[1], config.n_embd, config.n_head, config.head_width
x = trunk.wte.weight[ids] + trunk.wpe.weight[:T]  # (1, T, C): tokens do not know of each other yet
print(f"T = {T}, C = {C}, H = {H}, D = {D}; x is {tuple(x.shape)}")

# %% [markdown]
# A block does not read the stream as it is, but after a **LayerNorm** (`ln_1`, `ln_2`). It shifts and scales each
# vector to mean 0 and variance 1, and then multiplies with learnt weights and adds learnt biases.
#
# **`Attention`** has three steps. *Project*: each token gets a query, a key and a value in every head. *Attend*: a
# query is multiplied with the keys up to its own place, and the softmax of these scores gives the weights. *Merge*: `z`
# is the weighted sum of values. The `z` of all heads, side by side, are mapped back to C numbers. (Where nobody asks
# for the weights, `model/gpt2.py` lets one fused call of PyTorch do the second step.)


# %%
def attention(block, x):
    """What the attention of a block adds to the stream: (B, T, C) -> (B, T, C)."""
    q, k, v = block.attn.c_attn(block.ln_1(x)).split(C, dim=-1)  # three of (B, T, C)
    q, k, v = (y.unflatten(-1, (H, D)).transpose(1, 2) for y in (q, k, v))  # (B, H, T, D): one matrix per head
    scores = q @ k.transpose(-2, -1) / D**0.5  # (B, H, T, T), query x key
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)  # True where the key comes after the query
    weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1)  # each row sums to 1
    z = weights @ v  # (B, H, T, T) @ (B, H, T, D) -> (B, H, T, D)
    return block.attn.c_proj(z.transpose(1, 2).flatten(-2))


# %% [markdown]
# **`MLP`** makes each vector four times as wide, bends it with GELU, a smooth ReLU, and makes it narrow again. It looks
# at one token at a time: all that tokens learn of each other passes through attention.


# %%
def mlp(block, x):
    """What the MLP of a block adds to the stream: (B, T, C) -> (B, T, C)."""
    wide = F.gelu(block.mlp.c_fc(block.ln_2(x)), approximate="tanh")  # (B, T, 4 C)
    return block.mlp.c_proj(wide)


# %% [markdown]
# **`GPT2.run`** is a loop over the blocks, **`GPT2.norm`** one more LayerNorm (`ln_f`), and **`GPT2LM.read`**, in
# `model/readout.py`, a product with the table from which we started. We also ask what it would say after each block.


# %%
def read(x):
    return trunk.ln_f(x) @ trunk.wte.weight.T  # (..., C) -> logits (..., V)


stream = [x]  # before block 0, and after each of the 6 blocks
for block in trunk.h:
    x = x + attention(block, x)
    x = x + mlp(block, x)
    stream.append(x)
after = [read(each)[0, -1].softmax(dim=-1) for each in stream]  # probabilities (V,) at the last token
for i, p in enumerate(after):
    length = stream[i][0, -1].norm()
    print(f"after {i} blocks: {tokenizer.decode([p.argmax().item()])!r} {p.max():.2f}, length {length:.1f}")

word = after[-1].argmax()  # the token that the network says
first = next(i for i, p in enumerate(after) if p.argmax() == word)
measured = {
    "largest difference from the model's logits": (read(x) - lm(ids)).abs().max(),
    "blocks until the word comes first": first,
    "its probability at the end": after[-1][word],
    "its probability one block before it comes first": after[first - 1][word],
    "length of the vector at the end": stream[-1][0, -1].norm(),
}
show(measured)

# %% [markdown]
# ## What came out
#
# | measured | value |
# |---|---|
# | largest difference from the model's logits | 0 ± 0.001 |
# | blocks until the word comes first | 4 |
# | its probability at the end | 0.904 ± 0.005 |
# | its probability one block before it comes first | 0.004 ± 0.001 |
# | length of the vector at the end | 85.5 ± 0.5 |
#
# So few lines give the logits of the model, up to rounding. The network says *eyes*, with 0.904. At the start it says
# *her*: without a block, a token is most like itself. After 3 blocks *eyes* has 0.004, after 4 it comes first. The
# vector grows to 85.5, most of it in the first two blocks: what the table said is soon a small part of it.
#
# ## What it does not mean
#
# - To read the middle with the last LayerNorm and table is a trick, the *logit lens*, for which nothing was trained.
#   That *eyes* comes late there does not mean that the network decides late.
# - One sentence, and a phrase that novels repeat. Nothing here says that the network understands tears.
#
# ## Exercises
#
# **1.** How many parameters has one block, biases and LayerNorms included? Count them with pencil and paper, for C =
# 256: `c_attn`, `c_proj`, `c_fc`, `c_proj`, `ln_1`, `ln_2`. Put the number in the place of `None`.

# %%
answer_1 = None
check_1(answer_1)

# %% [markdown]
# **2.** Write LayerNorm yourself, a function of `x` (..., C), `weight` (C,), `bias` (C,) and `eps`, which is added to
# the variance. `torch.nn.LayerNorm` has the formula. Give the function itself, not called: `answer_2 = my_layer_norm`.

# %%
answer_2 = None
check_2(answer_2)
