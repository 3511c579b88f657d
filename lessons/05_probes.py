# %% [markdown]
# # 5. Probes: reading against needing
#
# ## What you will know
#
# How to find out whether something can be read from a place in the network, which controls that needs, and why what can
# be read need not be used. `make probe` asks the same of every head, and `docs/probe.md` says how.
#
# ## The idea
#
# A watch can be read by anyone who passes, though its owner never looks at it. A **probe** is such a passer-by: a small
# classifier, here a linear one, that sees the vectors of one place in the network, and learns to tell from them a
# property of the text. If it is right about new texts, the property stands there, in a form that a linear layer can use.
# Whether the network itself looks is another question. We answer that by taking the property out.
#
# A number of a probe means little without **controls**: what does one get without the network (the most frequent class, a
# bag of words), from a network that has learnt nothing (random weights), and from labels that mean nothing (a random label for
# each word, the **control task**)? Accuracy minus that of the control task is the probe's **selectivity**.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from experiments.probe.lens import class_lens
from experiments.probe.linear import Task, probe
from experiments.probe.sources import collect_texts, collect_words, score_baselines
from lab.activations import Site, record
from lab.device import Device
from lab.networks import draw_random_trunk, load_start
from lab.study import open_study
from lessons.checks import show
from lessons.checks.probes import check_1, check_2

study = open_study("course-0", Device.choose("cpu", "fp32"))  # gpt2-mini, fine-tuned by `make lessons` to tell emotions
clf, test = study.clf, study.texts["test"]
splits = [study.draw_texts("train", 600), study.draw_texts("val", 150), test]  # to fit, to choose, to test
source = collect_texts(splits, clf.labels)
task = source.tasks["emotion", "last"]  # the class, read at the last token: there the network reads it, too

# %% [markdown]
# ## Predict
#
# Six classes, equally many texts each. How many does a probe get right before layer 0, where the last token knows only
# itself? How many behind the last layer? How many before fine-tuning, when the network has seen no label at all?
#
# ## Try it
#
# The stream enters layers 0 to 5 and leaves the last: seven places, in three networks of the same shape.


# %%
def read_stream(trunk, source, reading):
    """What the stream holds of each row of a source at the seven places: (7, N, C)."""
    with TemporaryDirectory() as folder:
        places = record(trunk, source.sequences, {reading: source.positions[reading]}, Path(folder), study.device)
        return np.stack([places[reading].of(Site("resid", layer)) for layer in range(7)])


networks = {"fine-tuned": clf.trunk, "before": load_start(study)[0], "random weights": draw_random_trunk(clf.config, 0)}
stream = {name: read_stream(trunk, source, "last") for name, trunk in networks.items()}
accuracy = {name: [probe(x, task).accuracy for x in of_layers] for name, of_layers in stream.items()}
majority, bag_of_words = score_baselines([source], splits)["accuracy"]
lens = (class_lens(clf, test.sequences, study.device).argmax(-1) == test.targets[:, None]).mean(0)  # the network's head

for name, values in {**accuracy, "class lens": lens}.items():
    plt.plot(values, "o-", label=name)
for name, value in {"bag of words": bag_of_words, "most frequent class": majority}.items():
    plt.axhline(value, linestyle=":", color="grey")
    plt.text(0, value + 0.01, name)
plt.gca().set(xlabel="place in the stream", ylabel="share of test texts that are right", ylim=(0, 0.75))
plt.legend()
plt.show()

# %% [markdown]
# Words recur, so a probe can learn labels of words by heart. Is this word negated, as in *not happy*? And the control
# task: can the probe learn a random label for each word?

# %%
words = collect_words(splits, study.tokenizer, 3000, seed=0)[0][0]
negated = probe(read_stream(clf.trunk, words, "word")[1], words.tasks["negated", "word"])

# %% [markdown]
# Is the text longer than most? That can be read, too. Now take it out, before layer 2, of the last token: remove the
# direction from the mean of short texts to that of long ones. For six classes, that makes five directions. Then let the
# layers behind go on, and see how many answers change.

# %%
lengths = np.array([len(ids) for ids in source.sequences])
train = task.split == "train"
long = Task((lengths > np.median(lengths[train])).astype(int), ("short", "long"), task.split, task.text)
ids, last = pad_sequence([torch.tensor(ids) for ids in test.sequences], batch_first=True), test.lengths - 1


def remove_means(place, y, x):
    """Remove from vectors x (n, C) the directions in which the means of the classes y differ at a place."""
    known = stream["fine-tuned"][place][train]
    centre = known.mean(0)
    differences = np.stack([known[y[train] == k].mean(0) - centre for k in np.unique(y)])
    directions = np.linalg.svd(differences, full_matrices=False)[2][: len(differences) - 1]  # (K - 1, C), orthonormal
    return x - (x - centre) @ directions.T @ directions


@torch.no_grad()
def answer_without(place, y):
    """The answers (N,) to the test texts, with these directions removed at a place, of the last token."""
    x = clf.trunk.run(clf.trunk.embed(ids), 0, place)
    rows = torch.arange(len(x))
    x[rows, last] = torch.from_numpy(remove_means(place, y, x[rows, last].numpy()))
    x = clf.trunk.run(x, place) if place < 6 else x
    return clf.read(clf.trunk.norm(x), torch.from_numpy(last + 1)).argmax(1).numpy()


before = stream["fine-tuned"][2]
answers = class_lens(clf, test.sequences, study.device)[:, -1].argmax(1)
without_length, without_class = answer_without(2, long.y), answer_without(2, task.y)
measured = {
    "most frequent class": majority,
    "bag of words": bag_of_words,
    "class before layer 0": accuracy["fine-tuned"][0],
    "class before layer 2": accuracy["fine-tuned"][2],
    "class behind the last layer": accuracy["fine-tuned"][6],
    "class lens before layer 2": lens[2],
    "best before fine-tuning": max(accuracy["before"]),
    "best of random weights": max(accuracy["random weights"]),
    "negated": negated.accuracy,
    "random labels for words": negated.control,
    "length": probe(before, long).accuracy,
    "length, removed": probe(remove_means(2, long.y, before), long).accuracy,
    "class, removed": probe(remove_means(2, task.y, before), task).accuracy,
    "answers that change without length": (without_length != answers).mean(),
    "answers that are right": (answers == test.targets).mean(),
    "right without the class before layer 2": (without_class == test.targets).mean(),
    "right without the class behind the last layer": (answer_without(6, task.y) == test.targets).mean(),
}
show(measured)
