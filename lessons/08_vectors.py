# %% [markdown]
# # 8. Vectors: static and contextual, maps, clusters, topics, and how to be fooled by a map
#
# ## What you will know
#
# What a word's vector knows of its sentence, why raw cosines of texts are high, whether clusters of texts are the
# classes, and how to tell a map of texts from a map of noise. `docs/embed.md` goes on from here.
#
# ## The idea
#
# A dictionary has one entry for *bank*; a speaker means one of two. The row of a token in the table of tokens is an
# entry: **static**, the same in every sentence. In the residual stream, attention adds what stood before it: there the
# vector is **contextual**. **Pooling** makes one vector of a text: that of its last token, or the mean over its tokens.
#
# Nobody sees in 256 dimensions. So we look for **clusters**, list their words (**topics**), or draw a **map**. No flat
# map of the globe keeps all distances, and here far more is lost: t-SNE tries to keep each point's nearest neighbours,
# and nothing else. Each of these methods answers whatever it is fed. So feed it **noise** as well.
#
# ## Predict
#
# Two texts drawn at random: how large is the cosine of their vectors, from -1 to 1? At the end you see three maps: of
# texts the network was trained on, of texts it never saw, and of noise. Cover their lower row: which map is which?
#
# ## Try it
#
# `course-0` is a run of `make lessons`: gpt2-mini, fine-tuned on six feelings. `Spaces` records the vectors of 324
# texts of train and 324 of test, in the pretrained and in the fine-tuned network. First: rows, and words of two senses.

# %%
import tempfile
from pathlib import Path

from matplotlib import pyplot as plt
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from sklearn.preprocessing import normalize

from data.senses import read_senses
from experiments.embed.cluster_scores import score_against, score_inside
from experiments.embed.clustering import cluster, project
from experiments.embed.keywords import choose_top, score_log_odds
from experiments.embed.quality import recall_neighbours
from experiments.embed.reductions import embed_by_tsne, permute_columns
from experiments.embed.sites import describe_spread
from experiments.embed.spaces import PRETRAINED, TUNED, Site, Spaces
from experiments.embed.topics import find_candidates
from experiments.embed.words import find_ambiguous_words, measure_words
from lab.device import Device
from lab.figures import COLOURS
from lab.study import open_study
from lessons.checks import show
from lessons.checks.vectors import check_1, check_2

study, folder = open_study("course-0", Device.choose("cpu", "fp32")), tempfile.TemporaryDirectory()
spaces = Spaces(study, Path(folder.name), 324, 0)
table = normalize(spaces.networks[PRETRAINED].trunk.wte.weight.numpy())  # (V, C), rows of length 1
nearest = (table @ table[study.tokenizer.encode(" river")[0]]).argsort()[::-1]  # by cosine
print([study.tokenizer.decode([int(token)]) for token in nearest[:8]])
words = measure_words(spaces, PRETRAINED, find_ambiguous_words(read_senses(), spaces))  # twelve words of two senses
senses = words.groupby(["layer", "cue_side"])["sense_accuracy"].mean().unstack()
print(senses)  # is a word nearer to those of its sense? left: the sentence tells the sense before it; right: behind it

# %% [markdown]
# Texts, pooled by the mean: the cosine of all pairs, and how much of it one dimension of 256 makes up. **Centring**
# subtracts the mean vector of train. Then clusters of the last tokens' vectors: k-means finds six groups. Their
# adjusted mutual information (AMI) with the classes is 1 if groups are classes, and near 0 by chance. The control is
# noise: each dimension is shuffled over the texts by itself. Values stay, and all that made a text is gone.

# %%
end = spaces.n_sites - 1  # the site behind the last LayerNorm
raw, centred = (spaces.read(Site(PRETRAINED, end, "mean", each))["test"] for each in ("none", "centre"))  # (N, C)
before, after = (spaces.read(Site(network, end, "last", "standardise")) for network in (PRETRAINED, TUNED))
noise, last_token = permute_columns(after["test"], 0), [ids[-1] for ids in spaces.texts["test"].sequences]
vectors = {"test": after["test"], "noise": noise, "train": after["train"], "pretrained": before["test"]}
groups = {name: cluster(project(x), "kmeans", 6, 0) for name, x in vectors.items()}
ami = {name: score_against(groups[name], spaces.targets(name[:5]))["ami"] for name in ("test", "train")}
candidates, first_z = find_candidates(spaces.texts["test"], study, ENGLISH_STOP_WORDS), {}
for name in ("test", "noise"):  # topics: z says how far a word's odds in a group lie above those elsewhere
    z = score_log_odds(candidates.counts, groups[name], 6)  # (6, words)
    first_z[name] = z[:, candidates.single].max(axis=1).mean()
    print(name, [" ".join(candidates.names[choose_top(row, candidates.single)[:4]]) for row in z])

# %%
maps = {name: embed_by_tsne(vectors[name], 0, perplexity=5).coordinates for name in ("test", "noise", "train")}  # (N, 2)
points = {**maps, "noise in 50 dimensions": project(noise)}
found = {name: cluster(x, "agglomerative_ward", 6, 0) for name, x in points.items()}  # six groups, whatever x is
silhouette = {name: score_inside(x, found[name], "euclidean")["silhouette"] for name, x in points.items()}
classes = {"test": spaces.targets("test"), "noise": spaces.targets("test"), "train": spaces.targets("train")}
figure, grid = plt.subplots(2, 3, figsize=(11, 7), layout="constrained")
for row, (title, colours) in zip(grid, {"groups found in the map": found, "classes": classes}.items(), strict=True):
    for axes, (name, places) in zip(row, maps.items(), strict=True):
        for k, label in enumerate(spaces.labels):
            axes.scatter(*places[colours[name] == k].T, s=8, color=COLOURS[k], label=label)
        axes.set(title=f"{name}: {title}" if title == "classes" else title, xticks=[], yticks=[])
figure.legend(*grid[1, 0].get_legend_handles_labels(), loc="outside right lower", title="lower row")
plt.show()
measured = {
    "senses told by token and place": senses.loc[0, "left"],
    "senses told behind the last block": senses.loc[end - 1, "left"],
    "mean cosine of two texts": describe_spread(raw)["anisotropy"],
    "share of one dimension in it": describe_spread(raw)["top_dim_share"],
    "mean cosine after centring": describe_spread(centred)["anisotropy"],
    "AMI with classes, pretrained": score_against(groups["pretrained"], spaces.targets("test"))["ami"],
    "AMI with last tokens, pretrained": score_against(groups["pretrained"], last_token)["ami"],
    "AMI with classes, fine-tuned": ami["test"],
    "AMI with classes, texts of train": ami["train"],
    "AMI with classes, noise": score_against(groups["noise"], spaces.targets("test"))["ami"],
    "z of a first word, texts": first_z["test"],
    "z of a first word, noise": first_z["noise"],
    "silhouette, noise": silhouette["noise in 50 dimensions"],
    "silhouette, map of noise": silhouette["noise"],
    "silhouette, map of texts": silhouette["test"],
    "neighbours kept, map of noise": recall_neighbours(noise, maps["noise"], 15),
    "neighbours kept, map of texts": recall_neighbours(vectors["test"], maps["test"], 15),
}
show(measured)

# %% [markdown]
# ## What came out
