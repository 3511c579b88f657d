# %% [markdown]
# # 1. The forward pass: from token to logit
#
# ## What you will know
#
# How GPT-2 turns a sentence into the probabilities of the next word, which shape each intermediate result has, and
# where each line of it stands in `model/gpt2.py`. You need linear algebra and some PyTorch.
#
# ## The idea
#
# A language model reads tokens, pieces of words, and says for each of them which token comes next. GPT-2 gives each
# token a vector, the **residual stream**. A block of layers reads all these vectors and *adds* something to each of
# them: attention adds what it found in earlier tokens, an MLP adds what it made of the token's own vector. Behind the
# last block, the vector of the last token is compared with the vector of every token of the vocabulary. The more alike
# they are, the likelier that token comes next.
#
# The letters are those of the code: B texts, T tokens, L layers, H heads, D numbers in a head, C = H · D in a vector.

# %%
import torch
from torch.nn import functional as F

from lessons.checks import show
from lessons.checks.forward_pass import check_1, check_2
from model import Tokenizer, Trace, load_lm

torch.set_grad_enabled(False)  # nothing is trained here
lm, tokenizer = load_lm("gpt2-mini"), Tokenizer.load("gpt2-mini")  # 6 layers, 8 heads, trained on old English novels
trunk, config = lm.trunk, lm.config
text = "She looked at him with tears in her"
ids = torch.tensor([tokenizer.encode(text)])  # (B, T) = (1, 8)
print([tokenizer.decode([token]) for token in ids[0].tolist()])

# %% [markdown]
# ## Predict
#
# Write down, before you run on: which word comes next, and which probability does a small network give it? The network
# has 6 blocks. Behind which block would it first name that word, if you read its vector there as if it were the last?
#
# ## Try it
#
# Open `model/gpt2.py` beside this page. **`GPT2.embed`** adds two rows of tables, one for the token, one for its place.

# %%
T, C, H, D = ids.shape[1], config.n_embd, config.n_head, config.head_width
x = trunk.wte.weight[ids] + trunk.wpe.weight[:T]  # (1, T, C): tokens do not know of each other yet
print(f"T = {T}, C = {C}, H = {H}, D = {D}; x is {tuple(x.shape)}")

# %% [markdown]
# **`Attention`**, in three steps. *Project*: each token's normed vector becomes a query, a key and a value per head.
# *Attend*: a query is multiplied with the keys up to its own place, and the softmax of these scores gives the weights.
# *Merge*: the weighted sum of values, `z`, of all heads side by side, is mapped back to C numbers.


# %%
def attention(block, x):
    """What the attention of a block adds to the stream: (B, T, C) -> (B, T, C). Normed first, as in `Block.forward`."""
    q, k, v = block.attn.c_attn(block.ln_1(x)).split(C, dim=-1)  # three of (B, T, C)
    q, k, v = (y.unflatten(-1, (H, D)).transpose(1, 2) for y in (q, k, v))  # (B, H, T, D): C is cut into heads
    scores = q @ k.transpose(-2, -1) / D**0.5  # (B, H, T, T), query x key
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1)  # each row sums to 1
    z = weights @ v  # (B, H, T, T) @ (B, H, T, D) -> (B, H, T, D)
    return block.attn.c_proj(z.transpose(1, 2).flatten(-2))


# %% [markdown]
# **`MLP`** makes each vector four times as wide, bends it with GELU, and makes it narrow again. It looks at one token
# at a time: all that tokens learn from each other passes through attention.


# %%
def mlp(block, x):
    """What the MLP of a block adds to the stream: (B, T, C) -> (B, T, C)."""
    wide = F.gelu(block.mlp.c_fc(block.ln_2(x)), approximate="tanh")  # (B, T, 4 C)
    return block.mlp.c_proj(wide)


# %% [markdown]
# **`GPT2.run`** is a loop over the blocks, **`GPT2.norm`** one more LayerNorm, and **`GPT2LM.read`** a product with the
# table of tokens from which we started. At each stop we also ask what the network would say there.

# %%
stream = [x]  # what enters block 0, 1, ... and last what leaves the last block
for block in trunk.h:
    x = x + attention(block, x)
    x = x + mlp(block, x)
    stream.append(x)
logits = trunk.ln_f(x) @ trunk.wte.weight.T  # (B, T, V), one number per token of the vocabulary
trace = Trace("resid_pre")  # a notebook: the network writes down what it computes
expected = lm(ids, trace=trace)
early = [(trunk.ln_f(y[0, -1]) @ trunk.wte.weight.T).softmax(dim=-1) for y in stream]

eyes = tokenizer.encode(" eyes")[0]
measured = {
    "probability of eyes": logits[0, -1].softmax(dim=-1)[eyes],
    "rank of eyes": 1 + (logits[0, -1] > logits[0, -1, eyes]).sum(),
    "largest difference from the model's logits": (logits - expected).abs().max(),
    "blocks until eyes comes first": next(i for i, p in enumerate(early) if p.argmax() == eyes),
    "its probability one block earlier": early[4][eyes],
    "length of the stream at the start": stream[0][0, -1].norm(),
    "length of the stream at the end": stream[-1][0, -1].norm(),
}
show(measured)

# %% [markdown]
# ## What came out
#
# | measured | value |
# |---|---|
# | probability of eyes | 0.539 ± 0.005 |
# | rank of eyes | 1 |
# | largest difference from the model's logits | 0 ± 0.001 |
# | blocks until eyes comes first | 5 |
# | its probability one block earlier | 0.010 ± 0.001 |
# | length of the stream at the start | 1.47 ± 0.01 |
# | length of the stream at the end | 104.9 ± 0.5 |
#
# Thirty lines give the logits of `model/gpt2.py`, up to rounding. The network says *eyes*, and makes up its mind late:
# behind block 4 of 6 the word had a probability of 0.010. The stream grows from a length of 1.47 to 104.9: what a token
# was at first is soon a small part of it.
#
# ## What it does not mean
#
# - Reading the stream in the middle with the last LayerNorm and the last table is a trick, the *logit lens*. The middle
#   of the network was never trained to be read so. That *eyes* is not first there does not mean that it is not known.
# - One sentence, and a phrase that novels repeat. Nothing here says that the network understands tears.
#
# ## Exercises
#
# **1.** How many weights has one block of this network, biases and LayerNorms included? Count them from the shapes
# above, with pencil and paper: C = 256, and the MLP is 4 C wide. Put the number in the place of `None`.

# %%
answer_1 = None
check_1(answer_1)

# %% [markdown]
# **2.** Write LayerNorm yourself: a function of `x` (..., C), `weight` (C,), `bias` (C,) and `eps`. Give the function
# to the check, without calling it: `answer_2 = my_layer_norm`. Its definition stands in `torch.nn.LayerNorm`.

# %%
answer_2 = None
check_2(answer_2)
