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
# If it is right about new texts, the property stands there. The **class lens** needs no training: the network's own
# last layers read the place as if it were the end. Does the network look? Take it out: do the answers change?
#
# Its number means little without **controls**: always naming the most frequent label; a **bag of words**, which counts
# the words of the same texts; and for words a **control task**: each word has a random label, the same wherever it
# stands. Accuracy minus that of the control task is **selectivity**.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from experiments.probe.lens import class_lens
from experiments.probe.linear import Task, probe
from experiments.probe.sources import collect_texts, collect_words, score_baselines
from lab.activations import Site, read_activations
from lab.device import Device
from lab.study import open_study
from lessons.checks import show
from lessons.checks.probes import check_1, check_2

study = open_study("course-0", Device.choose("cpu"))  # gpt2-mini, fine-tuned on six emotions by `make lessons`
clf, test = study.clf, study.texts["test"]
splits = [study.draw_texts("train", 600), study.draw_texts("val", 150), test]  # to fit, to choose, to test
texts = collect_texts(splits, clf.labels)
emotion = texts.tasks["emotion", "last"]  # the class, read at the last token: there the network reads it, too
(words,), _ = collect_words(splits, study.tokenizer, 3000, seed=0)  # is a word negated, as in *not happy*?

# %% [markdown]
# ## Predict
#
# Of six classes, how many texts does a probe get right at the last token before layer 0? Behind the last layer? Before
# layer 2 it is mostly right about whether a text is long or short. Take length out of this vector: how many of the
# network's answers change? How many if the class is taken out instead?
#
# ## Try it

# %%
places = [Site("resid", layer) for layer in range(7)]  # the stream before layers 0 to 5, and behind the last
stream = read_activations(clf.trunk, texts.sequences, texts.positions["last"], places, study.device)  # 7 of (N, C)
of_words = read_activations(clf.trunk, words.sequences, words.positions["word"], places, study.device)
accuracy = [probe(x, emotion).accuracy for x in stream]
read_negated = probe(of_words[2], words.tasks["negated", "word"])
baselines = score_baselines([texts, words], splits).set_index(["property", "baseline"])["accuracy"]
lens = (class_lens(clf, test.sequences, study.device).argmax(axis=-1) == test.targets[:, None]).mean(axis=0)  # (7,)
measured = {"bag of words": baselines["emotion", "bag of words"], "class before layer 0": accuracy[0]}
measured |= {"class behind the last layer": accuracy[6], "class lens before layer 2": lens[2]}
measured |= {"negated": read_negated.accuracy, "random labels for words": read_negated.control}
measured["always *not negated*"] = baselines["negated", "most frequent class"]
plt.plot(np.transpose([accuracy, lens]), "o-", label=["probe of the last token", "class lens"])
plt.axhline(measured["bag of words"], color="grey", linestyle="--", label="bag of words, same texts")
plt.gca().set(xlabel="before layer (6: behind the last)", ylabel="accuracy on test", ylim=(0, 0.75))
plt.legend()
plt.show()

# %% [markdown]
# Now take length out of the last token's vectors before layer 2: along the direction from the mean of all to that of
# long texts, every vector moves to the mean. The class: the same for six such directions. Did it work? A new probe must
# fail. Would any change of this kind do as much? The control takes out the same labels, shuffled over the texts.

# %%
before_2, train = stream[2], emotion.split == "train"
lengths = np.array([len(ids) for ids in texts.sequences])
long = Task((lengths > np.median(lengths[train])).astype(int), ("short", "long"), emotion.split, emotion.text)
ids, n_tokens = pad_sequence([*map(torch.tensor, test.sequences)], batch_first=True), torch.tensor(test.lengths)
all_tokens = clf.trunk.run(clf.trunk.embed(ids), 0, 2)  # (N, T, C), the stream before layer 2


def take_out(y):
    """The vectors before layer 2 without what tells the means of the K labels y apart."""
    mean = before_2[train].mean(axis=0)
    differences = [before_2[train & (y == k)].mean(axis=0) - mean for k in np.unique(y)]  # they span K - 1 directions
    directions = np.linalg.svd(differences, full_matrices=False)[2][:-1]  # (K - 1, C), of length 1, at right angles
    return before_2 - (before_2 - mean) @ directions.T @ directions


def answer(vectors):
    """The network's answers to the test texts with these vectors at their last tokens before layer 2."""
    x = all_tokens.clone()
    x[np.arange(len(x)), n_tokens - 1] = torch.from_numpy(vectors[emotion.split == "test"])
    return clf.read(clf.trunk.norm(clf.trunk.run(x, 2)), n_tokens).argmax(dim=1).numpy()


answers, rng = answer(before_2), np.random.default_rng(0)  # the first as they were
for name, task in {"length": long, "class": emotion}.items():
    without, shuffled = take_out(task.y), [take_out(rng.permutation(task.y)) for _ in range(4)]
    measured[f"{name} before layer 2"] = probe(before_2, task).accuracy
    measured[f"{name}, taken out"] = probe(without, task).accuracy
    measured[f"answers that change without {name}"] = (answer(without) != answers).mean()
    measured[f"the same, {name} shuffled"] = np.mean([answer(each) != answers for each in shuffled])
show(measured)

# %% [markdown]
# ## What came out
#
# | measured | value |
# |---|---|
# | bag of words | 0.49 ± 0.03 |
# | class before layer 0 | 0.23 ± 0.05 |
# | class behind the last layer | 0.65 ± 0.05 |
# | class lens before layer 2 | 0.41 ± 0.06 |
# | negated | 0.88 ± 0.015 |
# | random labels for words | 0.92 ± 0.02 |
# | always *not negated* | 0.87 ± 0.01 |
# | length before layer 2 | 0.85 ± 0.06 |
# | length, taken out | 0.54 ± 0.03 |
# | answers that change without length | 0.04 ± 0.02 |
# | the same, length shuffled | 0.05 ± 0.02 |
# | class before layer 2 | 0.60 ± 0.04 |
# | class, taken out | 0.17 ± 0.03 |
# | answers that change without class | 0.14 ± 0.04 |
# | the same, class shuffled | 0.06 ± 0.03 |
#
# **A number alone says nothing.** The probe of *negated* is right about as often as *not negated* for every word.
# Random labels do even better: it is enough to know the word. Before layer 2 a probe reads the class at 0.60, the
# network's own end at 0.41. **Read, not needed:** length, 0.85. Without it, when a probe can only guess (0.54), few
# answers change, 0.04, about as many as with shuffled labels, 0.05. **Read, needed a little:** the class. Without it a
# probe gets one of six right, 0.17. More answers change than with shuffled labels, 0.14 to 0.06, yet most stay.
#
# ## What it does not mean
#
# A probe that is right shows no use; one that fails, no absence. Only the last token changed; others may refill it.
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
