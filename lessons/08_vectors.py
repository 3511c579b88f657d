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
# Two texts drawn at random: how large is the cosine of their vectors, from -1 to 1? At the end you see three maps: of
# texts the network was trained on, of texts it never saw, and of noise. Cover their lower row: which map is which?
#
# ## Try it
#
# `course-0` is a run of `make lessons`: gpt2-mini, fine-tuned on six feelings. `spaces` records vectors of 324 texts of
# train and 324 of test, in the pretrained and the fine-tuned network. First: which rows of the table are near *river*?
# Then twelve words of two senses each, in sentences that tell which, before (`left`) or after the word. Is a word's
# vector nearer to those of the same sense? Where the sentence tells it after the word, the network cannot know yet.

# %%
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
print(senses := words.groupby(["layer", "cue_side"])["sense_accuracy"].mean().unstack())
end = spaces.n_sites - 1  # the site behind the last LayerNorm
measured = {"senses told behind the last block": senses.loc[end - 1, "left"]}

# %% [markdown]
# **Texts**, pooled by the mean. **Centring** subtracts the mean vector of all texts.

# %%
raw, centred = (spaces.read(Site(PRETRAINED, end, "mean", each))["test"] for each in ("none", "centre"))  # (N, C)
measured["mean cosine of texts"] = describe_spread(raw)["anisotropy"]  # over all pairs
measured["mean cosine, centred"] = describe_spread(centred)["anisotropy"]

# %% [markdown]
# **Clusters.** k-means finds six groups of the last tokens' vectors. Their adjusted mutual information (AMI) with the
# classes is 1 where groups are classes, and near 0 by chance. The control is noise: each dimension keeps its values,
# shuffled over the texts. **Topics** are the words of a group whose odds there lie farthest above those elsewhere.

# %%
trained, unseen = spaces.read(Site(TUNED, end, "last", "standardise")).values()  # (N, C): of train, of test
before = spaces.read(Site(PRETRAINED, end, "last", "standardise"))["test"]
vectors = {"trained texts": trained, "unseen texts": unseen, "noise": permute_columns(unseen, 0), "pretrained": before}
classes = dict.fromkeys(vectors, spaces.targets("test")) | {"trained texts": spaces.targets("train")}
groups = {name: cluster(project(x), "kmeans", 6, 0) for name, x in vectors.items()}
for name in vectors:
    measured[f"AMI with classes, {name}"] = score_against(groups[name], classes[name])["ami"]
candidates = find_candidates(spaces.texts["test"], spaces.study, spaces.stop_words)
for name in ("unseen texts", "noise"):
    z = score_log_odds(candidates.counts, groups[name], 6)  # (6, words)
    print(name, [" ".join(candidates.names[choose_top(row, candidates.single)[:4]]) for row in z])

# %% [markdown]
# **Maps.** t-SNE draws one of each, and another method looks for six groups *in the map*.

# %%
figure, grid = plt.subplots(2, 3, figsize=(11, 7), layout="constrained")
for (found, true), name in zip(grid.T, ["trained texts", "unseen texts", "noise"], strict=True):
    places = embed_by_tsne(vectors[name], 0, perplexity=5).coordinates  # (N, 2)
    in_map = cluster(places, "agglomerative_ward", 6, 0)
    measured[f"silhouette in the map, {name}"] = score_inside(places, in_map, "euclidean")["silhouette"]
    measured[f"neighbours kept, {name}"] = recall_neighbours(vectors[name], places, 15)
    found.scatter(*places.T, s=8, c=in_map, cmap="tab10")
    found.set(title="groups found in it", xticks=[], yticks=[])
    true.scatter(*places.T, s=8, c=classes[name], cmap="tab10")
    true.set(title=f"{name}, by class", xticks=[], yticks=[])
plt.show()
show(measured)

# %% [markdown]
# ## What came out
#
# | measured | value |
# |---|---|
# | senses told behind the last block | 0.84 ± 0.03 |
# | mean cosine of texts | 0.79 ± 0.02 |
# | mean cosine, centred | 0.00 ± 0.03 |
# | AMI with classes, trained texts | 0.91 ± 0.08 |
# | AMI with classes, unseen texts | 0.31 ± 0.08 |
# | AMI with classes, noise | 0.00 ± 0.03 |
# | AMI with classes, pretrained | 0.09 ± 0.03 |
# | silhouette in the map, trained texts | 0.64 ± 0.10 |
# | silhouette in the map, unseen texts | 0.42 ± 0.08 |
# | silhouette in the map, noise | 0.31 ± 0.08 |
# | neighbours kept, trained texts | 0.53 ± 0.05 |
# | neighbours kept, unseen texts | 0.47 ± 0.05 |
# | neighbours kept, noise | 0.14 ± 0.04 |
#
# A row of the table knows no sense; behind the last block the vector tells it in 0.84 of the sentences, where half is
# chance. Two texts have a cosine of 0.79 because all share a direction, and 0.00 without it. After fine-tuning, groups
# are nearly the classes for texts it was trained on, 0.91, and much less so for others, 0.31.
#
# **The map made groups of noise**: their silhouette, 1 for groups far apart and 0 for none, is 0.31, beside 0.42 of
# texts. Noise has topics, too. What gives it away: of each point's 15 nearest neighbours the map kept 0.14.
#
# ## What it does not mean
#
# - A map of trained texts shows what was learnt by heart. Even that of unseen ones loses about half of the neighbours.
# - How far apart groups of a map lie, or how large they look, means nothing. What forms no group may still be known.
#
# ## Exercises
#
# **1.** Six texts of the classes a a a b b b are in the groups 1 1 2 2 2 2. Count pairs of texts: M of them, A share a
# class, B a group, S both. By chance S is E = A · B / M; at most it is (A + B) / 2. The adjusted Rand index is
# (S - E) / ((A + B) / 2 - E). What is it here, with two decimals?

# %%
answer_1 = None
check_1(answer_1)

# %% [markdown]
# **2.** Write a function of an array `x` (N, C), the vectors of N texts, that returns the cosines (N, N) of each with
# each, after centring over these texts. Give it to the check, not called. Then try it on `raw`.

# %%
answer_2 = None
check_2(answer_2)
