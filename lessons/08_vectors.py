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
# Nobody sees in 256 dimensions. So we look for **clusters**, list their words (**topics**), or draw a **map**, which
# loses far more than one of the globe. All these methods answer whatever they are fed. So feed them **noise** as well.
#
# ## Predict
#
# Pool texts by the mean, in the pretrained network. How large is the cosine of two texts, from -1 to 1? Later you see
# four maps, A to D: of texts that the network was fine-tuned on, of texts it never saw, of noise, and of points thrown
# at random on a sheet. Which is which? Answer before you run the cell behind them.
#
# ## Try it
#
# `course-0` is a run of `make lessons`: gpt2-mini, fine-tuned on six feelings. First the network before it reads words
# of two senses, in sentences that tell which before (`left`) or after the word (`right`). Is a word's vector nearer to
# those of its sense? Where it is equally near to both, that counts half.

# %%
import numpy as np
from matplotlib import pyplot as plt

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

spaces = open_spaces(open_study("course-0", Device.choose("cpu")), limit=324, seed=0)  # 324 texts of train, 324 of test
words = measure_words(spaces, PRETRAINED, find_ambiguous_words(read_senses(), spaces))
senses = words.groupby(["layer", "cue_side"])["sense_accuracy"].mean().unstack()
print(senses)  # layer 0: row of the table and position; 6: behind the last block; 7: behind the last LayerNorm
raw = spaces.read(Site(PRETRAINED, 7, "mean", "none"))["test"]  # (N, C)
measured = {"senses told at layer 0": senses["left"][0], "senses told at layer 6": senses["left"][6]}
measured["mean cosine of texts"] = describe_spread(raw)["anisotropy"]  # of all pairs

# %% [markdown]
# **Clusters.** k-means finds six groups of the last tokens' vectors. Their adjusted mutual information (AMI) with the
# classes is 1 where groups are classes, and near 0 by chance. The control is noise: each dimension keeps its values,
# shuffled over the texts. The **topic** of a group: words that it has far more often than the other groups.

# %%
trained, unseen = spaces.read(Site(TUNED, 7, "last", "standardise")).values()  # (N, C): of train, of test
vectors = {"trained texts": trained, "unseen texts": unseen, "noise": permute_columns(unseen, 0)}
classes = dict.fromkeys([*vectors, "sheet"], spaces.targets("test")) | {"trained texts": spaces.targets("train")}
groups = {name: cluster(project(x), "kmeans", 6, 0) for name, x in vectors.items()}
measured |= {f"AMI with classes, {name}": score_against(groups[name], classes[name])["ami"] for name in groups}
candidates = find_candidates(spaces.texts["test"], spaces.study, spaces.stop_words)
for name in ("unseen texts", "noise"):
    z = score_log_odds(candidates.counts, groups[name], 6)  # (6, words)
    print(name, [" ".join(candidates.names[choose_top(row, candidates.single)[:4]]) for row in z])

# %% [markdown]
# **Maps** by t-SNE, made for some 30 neighbours of each point. Another method, Ward's, finds six groups *in the map*.

# %%
maps = {name: embed_by_tsne(x, seed=0, perplexity=30).coordinates for name, x in vectors.items()}  # (N, 2)
maps["sheet"], vectors["sheet"] = np.random.default_rng(2).random((324, 2)), unseen  # as if it were a map of unseen
in_map = {name: cluster(places, "agglomerative_ward", 6, 0) for name, places in maps.items()}
order = np.random.default_rng(0).permutation([*maps])


def draw(colours, titles):
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
# | senses told at layer 0 | 0.42 ± 0.02 |
# | senses told at layer 6 | 0.92 ± 0.03 |
# | mean cosine of texts | 0.74 ± 0.02 |
# | AMI with classes, trained texts | 0.97 ± 0.06 |
# | AMI with classes, unseen texts | 0.33 ± 0.07 |
# | AMI with classes, noise | 0.00 ± 0.03 |
# | silhouette in the map, trained texts | 0.73 ± 0.06 |
# | silhouette in the map, unseen texts | 0.42 ± 0.05 |
# | silhouette in the map, noise | 0.28 ± 0.06 |
# | silhouette in the map, sheet | 0.36 ± 0.02 |
# | neighbours kept, trained texts | 0.61 ± 0.05 |
# | neighbours kept, unseen texts | 0.50 ± 0.05 |
# | neighbours kept, noise | 0.17 ± 0.04 |
# | neighbours kept, sheet | 0.05 ± 0.02 |
#
# A row of the table is the same in all sentences: with its position it tells senses no better than a coin, 0.42. Behind
# the last block 0.92 are told. Two texts have a cosine of 0.74, for all share a direction. Groups are nearly the
# classes for texts of the training, 0.97, and much less so for others, 0.33.
#
# **Six groups can be found in anything:** the sheet alone gives a silhouette of 0.36, unseen texts 0.42.
# Noise has topics, too. Ask what a map kept: 0.50 of the neighbours of unseen texts, 0.17 of noise, by chance 0.05.
#
# ## What it does not mean
#
# A map of trained texts shows what was learnt by heart. A class that forms no group may still be read by a probe.
#
# ## Exercises
#
# **1.** Six texts lie on a line at 0, 2, 6, 11, 14, 19, and in a map of it at 17, 20, 16, 10, 5, 8. Which share of each
# one's two nearest neighbours does it keep? How far is that above chance, which draws two of the other texts?

# %%
answer_1 = None
check_1(answer_1)

# %% [markdown]
# **2.** Write a function of an array `x` (N, C), the vectors of N texts, that returns the cosines (N, N) of each with
# each, after centring over these texts. Give it to the check, not called. On `raw`, they should be near 0 on the mean.

# %%
answer_2 = None
check_2(answer_2)
