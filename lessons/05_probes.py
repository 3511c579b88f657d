# %% [markdown]
# # 5. Probes: reading against needing
#
# ## What you will know
#
# Whether something can be read in the network, and why that does not say that it is used. See `docs/probe.md`.
#
# ## The idea
#
# A watch can be read by anyone who passes, though its owner may never look. A **probe** is such a passer-by: a small
# classifier, here a linear one, that learns to tell a property of a text from the vector of one place in the network.
# If it is right about new texts, the property stands there. Does the network look? Take it out: do the answers change?
#
# The number of a probe means little without **controls**: a bag of words, a network with random weights, and a
# **control task**, a random label for each word. Accuracy minus that of the control task is **selectivity**.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from experiments.probe.lens import class_lens
from experiments.probe.linear import Task, probe
from experiments.probe.sources import collect_texts, collect_words, score_baselines
from lab.activations import Site, record_in_memory
from lab.device import Device
from lab.networks import draw_random_trunk, load_start
from lab.study import open_study
from lessons.checks import show
from lessons.checks.probes import check_1, check_2

study = open_study("course-0", Device.choose("cpu"))  # gpt2-mini, fine-tuned on emotions by `make lessons`
clf, test = study.clf, study.texts["test"]
splits = [study.draw_texts("train", 600), study.draw_texts("val", 150), test]  # to fit, to choose, to test
source = collect_texts(splits, clf.labels)
task = source.tasks["emotion", "last"]  # the class, read at the last token: there the network reads it, too

# %% [markdown]
# ## Predict
#
# Of six classes, how many texts does a probe get right at the last token before layer 0? Behind the last layer? Before
# fine-tuning, when the network has seen no label at all?
#
# ## Try it


# %%
def read_stream(trunk, source, reading):
    """The stream at each row of a source, as it enters layers 0 to 5 and leaves the last: (7, N, C)."""
    places = [Site("resid", layer) for layer in range(7)]
    return np.stack(record_in_memory(trunk, source.sequences, source.positions[reading], places, study.device))


networks = {"fine-tuned": clf.trunk, "before": load_start(study)[0], "random weights": draw_random_trunk(clf.config, 0)}
stream = {name: read_stream(trunk, source, "last") for name, trunk in networks.items()}
accuracy = {name: [probe(x, task).accuracy for x in of_layers] for name, of_layers in stream.items()}
bag_of_words = score_baselines([source], splits)["accuracy"].iloc[1]
said = class_lens(clf, test.sequences, study.device).argmax(axis=-1)  # what the network's own head says: (N, 7)
lens = (said == test.targets[:, None]).mean(axis=0)

lines = {**accuracy, "its own head": lens, "bag of words": 7 * [bag_of_words]}
plt.plot(np.transpose([*lines.values()]), "o-", label=[*lines])
plt.gca().set(xlabel="place in the stream", ylabel="share of test texts that are right", ylim=(0, 0.75))
plt.legend()
plt.show()

# %% [markdown]
# Is this word negated, as in *not happy*? The control task: which random label has this word? And: is the text longer
# than most? Take length out of the last token before layer 2: remove the direction from the mean of short texts to that
# of long ones. Then the means are equal, and no linear probe can tell them. Six classes have five directions.

# %%
words = collect_words(splits, study.tokenizer, 3000, seed=0)[0][0]
negated = probe(read_stream(clf.trunk, words, "word")[1], words.tasks["negated", "word"])
train, lengths = task.split == "train", np.array([*map(len, source.sequences)])
long = Task((lengths > np.median(lengths[train])).astype(int), ("short", "long"), task.split, task.text)
ids, last = pad_sequence([torch.tensor(ids) for ids in test.sequences], batch_first=True), test.lengths - 1


def answer_without(y):
    """The answers (N,) to the test texts if the last token loses, before layer 2, what tells the means of y apart."""
    known = stream["fine-tuned"][2][train]
    differences = [known[y[train] == k].mean(axis=0) - known.mean(axis=0) for k in np.unique(y)]
    directions = np.linalg.svd(differences, full_matrices=False)[2][: len(differences) - 1]  # (K - 1, C), orthonormal
    x, rows = clf.trunk.run(clf.trunk.embed(ids), 0, 2), np.arange(len(ids))
    x[rows, last] -= torch.from_numpy((x[rows, last].numpy() - known.mean(axis=0)) @ directions.T @ directions)
    return clf.read(clf.trunk.norm(clf.trunk.run(x, 2)), torch.from_numpy(last + 1)).argmax(dim=1).numpy()


measured = {
    "bag of words": bag_of_words,
    "class before layer 0": accuracy["fine-tuned"][0],
    "class before layer 2": accuracy["fine-tuned"][2],
    "class behind the last layer": accuracy["fine-tuned"][6],
    "best before fine-tuning": max(accuracy["before"]),
    "best of random weights": max(accuracy["random weights"]),
    "negated": negated.accuracy,
    "random labels for words": negated.control,
    "length before layer 2": probe(stream["fine-tuned"][2], long).accuracy,
    "answers that change without it": (answer_without(long.y) != said[:, -1]).mean(),
    "answers that are right": lens[-1],
    "right without the class in layer 2": (answer_without(task.y) == test.targets).mean(),
}
show(measured)

# %% [markdown]
# ## What came out
#
# | measured | value |
# |---|---|
# | bag of words | 0.49 ± 0.03 |
# | class before layer 0 | 0.21 ± 0.05 |
# | class before layer 2 | 0.58 ± 0.05 |
# | class behind the last layer | 0.63 ± 0.05 |
# | best before fine-tuning | 0.48 ± 0.04 |
# | best of random weights | 0.31 ± 0.04 |
# | negated | 0.88 ± 0.03 |
# | random labels for words | 0.93 ± 0.03 |
# | length before layer 2 | 0.98 ± 0.02 |
# | answers that change without it | 0.03 ± 0.03 |
# | answers that are right | 0.62 ± 0.04 |
# | right without the class in layer 2 | 0.59 ± 0.05 |
#
# The class stands before layer 2 nearly as clearly as at the end. The probe of *negated* does no better than nonsense.
# **Read, not needed:** length. Even without the class before layer 2 nearly all right answers stay: later layers can
# read it anew from other tokens. **Needed, not read:** before layer 0 the last token tells next to nothing, yet all
# that the network will ever know of the text enters that layer, at other tokens.
#
# ## What it does not mean
#
# A probe that is right shows no use, one that fails no absence: it may look at the wrong token, or need a curve.
#
# ## Exercises
#
# **1.** Of 100 words, a probe gets 90 right, always naming the most frequent label 85, and a probe of the control task
# 88. What is the selectivity, as a difference of shares?

# %%
answer_1 = None
check_1(answer_1)

# %% [markdown]
# **2.** Write `remove(x, direction)`: along a direction (C,) of any length, all vectors x (N, C) move to their mean.

# %%
answer_2 = None
check_2(answer_2)
