# %% [markdown]
# # 8. Vectors: static and contextual, maps, clusters, topics, and how to be fooled by a map
#
# ## What you will know
#
# What a word's vector knows of its sentence, why cosines of texts are high, whether clusters of texts are classes, and
# how to tell a map of texts from a map of noise. `docs/embed.md` goes on from here.
#
# ## The idea
#
# A dictionary has one entry for *bank*; a speaker means one of two. A token's row in the table of tokens is an entry:
# **static**, the same in every sentence. In the residual stream, attention adds what stood before it: there the vector
# is **contextual**. **Pooling** makes one vector of a text: that of its last token, or the mean over its tokens.
#
# Nobody sees in 256 dimensions. So we look for **clusters**, list their words (**topics**), or draw a **map**. A flat
# map of the globe cannot keep all distances; here far more is lost. t-SNE tries to keep the nearest neighbours of each
# point, and nothing else. All these methods answer whatever they are fed. So feed them **noise** as well.
#
# ## Predict
#
# Take the mean of the pretrained network's vectors over each text. How large is the cosine of two texts drawn at random,
# from -1 to 1? Later you see four maps, A to D: of texts that the network was fine-tuned on, of texts it never saw, of
# noise, and 324 points thrown at random on a sheet. Before you run the cell behind them, say which is which.
#
# ## Try it
#
# `course-0` is a run of `make lessons`: gpt2-mini, fine-tuned on six feelings. `spaces` records vectors of 324 texts of
# train and 324 of test, in the pretrained and the fine-tuned network. First: which rows of the table are near *river*?
# Then twelve words of two senses each, in sentences that tell which, before (`left`) or after the word. Is a word's
# vector nearer to those of the same sense? Of two that are equally near, each counts half.

# %%
import numpy as np
from matplotlib import pyplot as plt
from sklearn.preprocessing import normalize

from data.senses import read_senses
from experiments.embed.cluster_scores import score_against, score_inside
from experiments.embed.clustering import cluster, project
from experiments.embed.keywords import choose_top, score_log_odds
from experiments.embed.quality import recall_neighbours
from experiments.embed.reductions import embed_by_tsne, permute_columns
from experiments.embed.sites import describe_spread
from experiments.embed.spaces import PRETRAINED, TUNED, Site, open_spaces
from experiments.embed.topics import find_candidates
from experiments.embed.words import find_ambiguous_words, measure_words
from lab.device import Device
from lab.study import open_study
from lessons.checks import show
from lessons.checks.vectors import check_1, check_2

spaces = open_spaces(open_study("course-0", Device.choose("cpu")), limit=324, seed=0)
table = normalize(spaces.networks[PRETRAINED].trunk.wte.weight.numpy())  # (V, C), rows of length 1
cosines = table @ table[spaces.study.tokenizer.encode(" river")[0]]  # (V,): of *river* with every token
print([spaces.study.tokenizer.decode([int(token)]) for token in cosines.argsort()[:-9:-1]])

words = measure_words(spaces, PRETRAINED, find_ambiguous_words(read_senses(), spaces))
senses = words.groupby(["layer", "cue_side"])["sense_accuracy"].mean().unstack()
print(senses)  # layer 0: the row of the table and the position; 6: behind the last block; 7: and its LayerNorm
measured = {
    "senses told by row and position": senses["left"][0],
    "senses told behind the last block": senses["left"][6],
}
end = spaces.n_sites - 1  # 7

# %% [markdown]
# **Texts**, pooled by the mean. **Centring** subtracts the mean vector of all texts.

# %%
raw, centred = (spaces.read(Site(PRETRAINED, end, "mean", each))["test"] for each in ("none", "centre"))  # (N, C)
measured["mean cosine of texts"] = describe_spread(raw)["anisotropy"]  # that is its name, over all pairs
measured["mean cosine, centred"] = describe_spread(centred)["anisotropy"]

# %% [markdown]
# **Clusters.** k-means finds six groups of the last tokens' vectors. Their adjusted mutual information (AMI) with the
# classes is 1 where groups are classes, and near 0 by chance. The control is noise: each dimension keeps its values,
# shuffled over the texts. The **topic** of a group: words that it has far more often than the other groups.

# %%
trained, unseen = spaces.read(Site(TUNED, end, "last", "standardise")).values()  # (N, C): of train, of test
vectors = {"trained texts": trained, "unseen texts": unseen, "noise": permute_columns(unseen, 0)}
classes = dict.fromkeys([*vectors, "sheet"], spaces.targets("test")) | {"trained texts": spaces.targets("train")}
groups = {name: cluster(project(x), "kmeans", 6, 0) for name, x in vectors.items()}
for name in vectors:
    measured[f"AMI with classes, {name}"] = score_against(groups[name], classes[name])["ami"]
candidates = find_candidates(spaces.texts["test"], spaces.study, spaces.stop_words)
for name in ("unseen texts", "noise"):
    z = score_log_odds(candidates.counts, groups[name], 6)  # (6, words)
    print(name, [" ".join(candidates.names[choose_top(row, candidates.single)[:4]]) for row in z])

# %% [markdown]
# **Maps** by t-SNE, which looks at some 30 neighbours of each point. Another method, Ward's, finds six groups *in the map*.

# %%
maps = {name: embed_by_tsne(x, seed=0, perplexity=30).coordinates for name, x in vectors.items()}  # (N, 2)
maps["sheet"], vectors["sheet"] = np.random.default_rng(2).random((324, 2)), unseen  # as if it were a map of unseen
in_map = {name: cluster(places, "agglomerative_ward", 6, 0) for name, places in maps.items()}
order = np.random.default_rng(0).permutation([*maps])


def draw(colours, titles):
    """Draw the maps in this order."""
    axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")[1]
    for name, title, ax in zip(order, titles, axes, strict=True):
        ax.scatter(*maps[name].T, s=8, c=colours[name], cmap="tab10")
        ax.set(title=title, xticks=[], yticks=[])
    plt.show()


draw(in_map, "ABCD")

# %% [markdown]
# **Which is which?** The same maps, coloured by class. The silhouette of groups is 1 if they lie far apart, 0 if they
# touch. A map **keeps** a neighbour if it is among the 15 nearest of a point in the space and in the map.

# %%
draw(classes, order)
for name, places in maps.items():
    measured[f"silhouette in the map, {name}"] = score_inside(places, in_map[name], "euclidean")["silhouette"]
    measured[f"neighbours kept, {name}"] = recall_neighbours(vectors[name], places, 15)
show(measured)

# %% [markdown]
# ## What came out
#
# | measured | value |
# |---|---|
# | senses told by row and position | 0.41 ± 0.02 |
# | senses told behind the last block | 0.84 ± 0.03 |
# | mean cosine of texts | 0.79 ± 0.02 |
# | mean cosine, centred | 0.00 ± 0.03 |
# | AMI with classes, trained texts | 0.91 ± 0.08 |
# | AMI with classes, unseen texts | 0.31 ± 0.08 |
# | AMI with classes, noise | 0.00 ± 0.03 |
# | silhouette in the map, trained texts | 0.66 ± 0.08 |
# | silhouette in the map, unseen texts | 0.36 ± 0.06 |
# | silhouette in the map, noise | 0.24 ± 0.08 |
# | silhouette in the map, sheet | 0.36 ± 0.02 |
# | neighbours kept, trained texts | 0.61 ± 0.05 |
# | neighbours kept, unseen texts | 0.52 ± 0.05 |
# | neighbours kept, noise | 0.16 ± 0.04 |
# | neighbours kept, sheet | 0.05 ± 0.02 |
#
# Where the word comes first (`right`), nothing can be known yet: equal vectors, half. A row is the same in all sentences,
# its position says no more (0.41: these are few sentences); behind the last block 0.84 are told. Two texts have a cosine
# of 0.79 because all share a direction, and 0.00 without it. Groups are nearly the classes where the network was trained
# on the texts, 0.91, and much less so elsewhere, 0.31.
#
# **Six groups can be found in anything:** those of points thrown on a sheet have a silhouette of 0.36, as have those of
# unseen texts. Noise has topics, too. Ask what the map kept: 0.52 of the neighbours, of noise 0.16; by chance 0.05.
#
# ## What it does not mean
#
# - A map of trained texts shows what was learnt by heart. Even that of unseen ones loses about half of the neighbours.
# - How far apart groups of a map lie says little. A class that forms no group may still be read by a probe.
#
# ## Exercises
#
# **1.** To count by hand, let space and map be lines. Six texts lie in the space at 0, 2, 6, 11, 14, 19, and in the map at
# 17, 20, 16, 10, 5, 8. Which share of the two nearest neighbours of each does the map keep, and how far is that above
# chance, where a map picks two others at random? Give the difference.

# %%
answer_1 = None
check_1(answer_1)

# %% [markdown]
# **2.** Write a function of an array `x` (N, C), the vectors of N texts, that returns the cosines (N, N) of each with
# each, after centring over these texts. Give it to the check, not called. On `raw`, they should be near 0 on the mean.

# %%
answer_2 = None
check_2(answer_2)
