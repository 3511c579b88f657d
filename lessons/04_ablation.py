# %% [markdown]
# # 4. Ablation: close a head
#
# ## What you will know
#
# How a part of a network is taken out, how its effect on a class is measured, and which four questions to ask before a
# difference becomes a finding. `make ablate` asks them of more texts; see `docs/ablate.md`.
#
# ## The idea
#
# Whether an orchestra needs its second violin shows when the violin is silent. **Ablation** asks the same of a head: it
# **closes** the head and runs the same texts again. In `model/gpt2.py` each head has a **gate**: at 1 the head emits
# what it computed, at 0 a **fill**, and that is part of the question. *Zero*: what if the head said nothing, which the
# layers behind it hardly ever saw? *Mean*: what if it said the same of every text, its mean over texts of training?
# *Resample*: what if it spoke of another text? The first two are below.
# The network here sorts texts into six emotions. The **log-odds** of a class set its logit against all others:
# log p - log(1 - p). Their mean over the class's own texts, minus their mean over all other texts, is the class's
# **margin**: how far the network tells it from the others. We ask which share of the margin is lost.

# %%
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import spearmanr

from lab import fills
from lab.device import Device
from lab.shares import Temperatures, fit_temperatures, measure_margins, measure_shares, temper
from lab.study import open_study
from lab.sweep import BASELINE, collect_logits, fill_zeros
from lab.units import each_head, random_subspaces
from lessons.checks import show
from lessons.checks.ablation import check_1, check_2

device = Device.choose("cpu")
study, other = open_study("course-0", device), open_study("course-1", device)  # fine-tuned by `make lessons`
test, train = study.draw_texts("test", 100), study.draw_texts("train", 400)
heads = each_head(study.clf.config)

# %% [markdown]
# ## Predict
#
# There are 6 layers of 8 heads. How many of the 48 take a tenth of the margin? Does a closed head do more harm if it
# emits zero, or its mean? If one head stands out, and with another seed, too: does it tell the emotions apart?
#
# ## Try it
#
# The sweep closes one head at a time. Row 0 is the whole network, rows 1 to 48 are the networks without a head.


# %%
def close_each(study, texts, ablations, fill):
    """Logits (1 + U, N, 1, K) of the whole network and U ablated ones on N texts, for K classes."""
    return collect_logits(study.clf, texts.sequences, [BASELINE, *ablations], [fill], device).swapaxes(0, 1)


def lose(logits, targets, temperature=1):
    """The share of each class's margin that each ablation takes: (1 + U, N, 1, K) -> (U, K)."""
    log_odds, _ = temper(logits, temperature * np.ones(len(logits)))  # logits / temperature -> (1 + U, N, K)
    margins = measure_margins(log_odds, targets, np.ones((1, len(targets))))[0]  # (1 + U, K)
    return 1 - margins[1:] / margins[0]


means = (fills.measure_means(each.clf, train.sequences, train.targets, device) for each in (study, other))
mean, other_mean = map(fills.mean, means)
logits, zero_logits = (close_each(study, test, heads, fill) for fill in (mean, fill_zeros))
lost, lost_zero = (lose(each, test.targets) for each in (logits, zero_logits))  # (48, 6) each

# %% [markdown]
# One head stands out: (0, 3), head 3 of layer 0. Before you believe it: **(a) Is it large, do these texts show it?** A
# difference from 0 says nothing about size. Limits so wide that all 288 (48 heads, 6 classes) hold together say more.
# An effect *matters* if both lie beyond 0.05, a size chosen beforehand; else it is negligible, or the texts leave it
# open. **(b) Does any part of this size do as much?** A layer's heads emit 256 numbers, 32 each. A random **subspace**
# is 32 other dimensions, a mixture of all heads. **(c) Is it so with another seed?** Both runs began with the same
# heads. **(d) Is it more than confidence?** Multiply all logits by 0.9: no answer changes, yet every margin shrinks by
# about a tenth. So divide each network's logits by its **temperature**, the number with which the true classes of val
# become most likely. That takes many texts: all.

# %%
as_they_are = Temperatures(np.ones(49), np.ones((1000, 49)))
table = measure_shares(logits[0][:, 0], logits[1:], test.targets, study.clf.labels, as_they_are, permute=False)
subspaces = random_subspaces(study.clf.config, "head", 19, seed=0)[:19]  # those of layer 0
random = lose(close_each(study, test, subspaces, mean), test.targets).mean(axis=1)  # (19,)
other_lost = lose(close_each(other, test, heads, other_mean), test.targets)

all_texts, aside, val, y = [], [], study.texts["val"], study.texts["test"].targets
for each, fill in ((study, mean), (other, other_mean)):
    on_val, on_test = (close_each(each, study.texts[split], heads[3:4], fill) for split in ("val", "test"))
    temperature = fit_temperatures(on_val[0][:, 0], on_val[1:], val.targets).fitted  # (2,): whole, and without 0.3
    all_texts.append(lose(on_test, y).mean())
    aside.append(lose(on_test, y, temperature).mean())
of_head, of_other = lost.mean(axis=1), other_lost.mean(axis=1)  # (48,), mean over the classes
plt.imshow(of_head.reshape(6, 8), cmap="RdBu_r", vmin=-0.15, vmax=0.15)
plt.gca().set(title="share of the margin lost without a head (red)", xlabel="head", ylabel="layer")
plt.show()
measured = {
    "lost without head 0.3": of_head[3],
    "size of an effect, fill mean": abs(lost).mean(),
    "size of an effect, fill zero": abs(lost_zero).mean(),
    "effects that differ from 0 one by one": ((table["ci_low"] > 0) | (table["ci_high"] < 0)).sum(),
    "effects that matter": (table["verdict"] == "matters").sum(),
    "most lost without a subspace": random.max(),
    "rank correlation of two seeds": spearmanr(of_head, of_other).statistic,
    "without 0.3, all texts": all_texts[0],
    "the same, confidence set aside": aside[0],
    "without 0.3, all texts, other seed": all_texts[1],
    "the same, confidence set aside, other seed": aside[1],
}
show(measured)

# %% [markdown]
# ## What came out
#
# | measured | value |
# |---|---|
# | lost without head 0.3 | 0.15 ± 0.03 |
# | size of an effect, fill mean | 0.019 ± 0.004 |
# | size of an effect, fill zero | 0.018 ± 0.004 |
# | effects that differ from 0 one by one | 90 ± 25 |
# | effects that matter | 1 ± 3 |
# | most lost without a subspace | 0.05 ± 0.02 |
# | rank correlation of two seeds | 0.65 ± 0.20 |
# | without 0.3, all texts | 0.12 ± 0.03 |
# | the same, confidence set aside | 0.08 ± 0.04 |
# | without 0.3, all texts, other seed | 0.09 ± 0.03 |
# | the same, confidence set aside, other seed | -0.01 ± 0.05 |
#
# Zero and mean do about as much. **(a)** Some 90 effects differ from 0; hardly any surely matters. **(b)** No subspace
# takes nearly as much as (0, 3). **(c)** Both seeds rank the heads alike; (0, 3) takes a lot in both. So far a finding.
# **(d)** Yet with confidence set aside the other seed loses little or nothing: its (0, 3) mostly makes it surer. In one
# of two trainings (0, 3) also tells the emotions apart. What repeats with every seed need not be what you think.
#
# ## What it does not mean
#
# A head that costs little may be needed: others may stand in for it. Two seeds are few, and so are 100 texts.
#
# ## Exercises
#
# **1.** A head takes 0.08 of a margin. Of 39 random subspaces 3 take as much or more. Suppose that the head is one more
# random draw, nothing special: which share of all draws, itself among them, takes at least as much? That share is p.

# %%
answer_1 = None
check_1(answer_1)

# %% [markdown]
# **2.** Build the `head_gate` (B, L, H, T) that closes all heads of layer 2; axes along which all is alike have size 1.

# %%
answer_2 = None
check_2(answer_2)
