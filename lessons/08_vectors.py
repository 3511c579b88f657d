# %% [markdown]
# # 8. Vectors: static and contextual, maps, clusters, topics, and how to be fooled by a map
#
# ## What you will know
#
# What a word's vector knows of its sentence, why raw cosines of texts are high, whether clusters of texts are classes,
# and how to tell a map of texts from a map of noise. You need lesson 1; `docs/embed.md` goes on from here.
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
# train and 324 of test, in the pretrained and the fine-tuned network. First: rows, and words of two senses.

# %%
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
from experiments.embed.spaces import PRETRAINED, TUNED, Site, open_spaces
from experiments.embed.topics import find_candidates
from experiments.embed.words import find_ambiguous_words, measure_words
from lab.device import Device
from lab.study import open_study
from lessons.checks import show
from lessons.checks.vectors import check_1, check_2

study = open_study("course-0", Device.choose("cpu"))
spaces = open_spaces(study, limit=324, seed=0)
table = normalize(spaces.networks[PRETRAINED].trunk.wte.weight.numpy())  # (V, C), rows of length 1
nearest = (table @ table[study.tokenizer.encode(" river")[0]]).argsort()[:-9:-1]  # eight, by cosine
print([study.tokenizer.decode([int(token)]) for token in nearest])
words = measure_words(spaces, PRETRAINED, find_ambiguous_words(read_senses(), spaces))  # twelve words of two senses
senses = words.groupby(["layer", "cue_side"])["sense_accuracy"].mean().unstack()
print(senses)  # is a word nearer to those of its sense? left: the sentence tells the sense before it; right: behind it

# %% [markdown]
# Now texts, pooled by the mean: the cosine of all pairs, and how much of it one dimension of 256 makes up. **Centring**
# subtracts the mean. Then k-means finds six groups of the last tokens' vectors. Their adjusted mutual information (AMI)
# with the classes is 1 where groups are classes, near 0 by chance. The control is noise: each dimension is shuffled
# over the texts by itself. Its values stay, and all that dimensions have to do with each other goes.

# %%
end = spaces.n_sites - 1  # the site behind the last LayerNorm
trained, unseen = spaces.read(Site(TUNED, end, "last", "standardise")).values()  # (N, C) each
before = spaces.read(Site(PRETRAINED, end, "last", "standardise"))["test"]
vectors = {"unseen texts": unseen, "noise": permute_columns(unseen, 0), "trained texts": trained, "pretrained": before}
classes = dict.fromkeys(vectors, spaces.targets("test")) | {"trained texts": spaces.targets("train")}
groups = {name: cluster(project(x), "kmeans", 6, 0) for name, x in vectors.items()}
means = [spaces.read(Site(PRETRAINED, end, "mean", correction))["test"] for correction in ("none", "centre")]
spread, centred = map(describe_spread, means)  # of all pairs of texts
measured = {"senses told behind the last block": senses.loc[end - 1, "left"], "mean cosine": spread["anisotropy"]}
measured |= {"share of one dimension in it": spread["top_dim_share"], "cosine after centring": centred["anisotropy"]}
measured |= {f"AMI with classes, {name}": score_against(groups[name], classes[name])["ami"] for name in vectors}
last_tokens = [ids[-1] for ids in spaces.texts["test"].sequences]
measured["AMI with last tokens, pretrained"] = score_against(groups["pretrained"], last_tokens)["ami"]
candidates = find_candidates(spaces.texts["test"], study, ENGLISH_STOP_WORDS)
for name in ("unseen texts", "noise"):  # topics: z says how far a word's odds in a group lie above those elsewhere
    z = score_log_odds(candidates.counts, groups[name], 6)  # (6, words)
    measured[f"z of first words, {name}"] = z[:, candidates.single].max(axis=1).mean()
    print(name, [" ".join(candidates.names[choose_top(row, candidates.single)[:4]]) for row in z])
maps = {name: embed_by_tsne(x, 0, perplexity=5).coordinates for name, x in vectors.items() if name != "pretrained"}
found = {name: cluster(places, "agglomerative_ward", 6, 0) for name, places in maps.items()}  # six, whatever is there
figure, grid = plt.subplots(2, 3, figsize=(11, 7), layout="constrained")
for row, colours in zip(grid, (found, classes), strict=True):
    for axes, (name, places) in zip(row, maps.items(), strict=True):
        for k, label in enumerate(spaces.labels):
            axes.scatter(*places[colours[name] == k].T, s=8, color=f"C{k}", label=label)
        axes.set(title="groups found in it" if colours is found else f"{name}, by class", xticks=[], yticks=[])
figure.legend(*axes.get_legend_handles_labels(), loc="outside right lower", title="lower row")
plt.show()
for name, x in (("noise", project(vectors["noise"])), ("map of noise", maps["noise"])):
    measured[f"silhouette, {name}"] = score_inside(x, cluster(x, "agglomerative_ward", 6, 0), "euclidean")["silhouette"]
measured |= {f"neighbours kept, {name}": recall_neighbours(vectors[name], maps[name], 15) for name in list(maps)[:2]}
show(measured)

# %% [markdown]
# ## What came out
#
# | measured | value |
# |---|---|
# | senses told behind the last block | 0.84 ± 0.03 |
# | mean cosine | 0.79 ± 0.02 |
# | share of one dimension in it | 0.39 ± 0.02 |
# | cosine after centring | 0.00 ± 0.03 |
# | AMI with classes, unseen texts | 0.31 ± 0.08 |
# | AMI with classes, noise | 0.00 ± 0.03 |
# | AMI with classes, trained texts | 0.91 ± 0.08 |
# | AMI with classes, pretrained | 0.09 ± 0.03 |
# | AMI with last tokens, pretrained | 0.36 ± 0.05 |
# | z of first words, unseen texts | 2.1 ± 0.2 |
# | z of first words, noise | 1.9 ± 0.2 |
# | silhouette, noise | 0.00 ± 0.03 |
# | silhouette, map of noise | 0.31 ± 0.08 |
# | neighbours kept, unseen texts | 0.47 ± 0.05 |
# | neighbours kept, noise | 0.14 ± 0.04 |
#
# The row of a token knows no sense; behind the last block its vector tells the sense in 0.84 of the sentences, where
# about half is chance. Two texts have a cosine of 0.79 because all share a direction, and 0.00 without it.
#
# The pretrained groups go with the last token, often a full stop, more than with feelings. After fine-tuning they are
# nearly the classes for texts it was trained on, 0.91, and less so for others, 0.31.
#
# **The map made groups of noise**: their silhouette, 1 for groups far apart, is above that of the noise itself, 0.00.
# Words of groups of noise stand out nearly as much. What gives it away: of each point's 15 nearest, the map kept 0.14
# in noise, and 0.47 where there was something to keep.
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
# each, after centring over these texts. Give it to the check, not called. Then try it on `means[0]`.

# %%
answer_2 = None
check_2(answer_2)
