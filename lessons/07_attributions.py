# %% [markdown]
# # 7. Which words: attributions, faithfulness, and tests that a wrong explanation fails
#
# ## What you will know
#
# Ways to say how much each word adds to an answer, why they disagree, and two tests that an explanation must pass.
#
# ## The idea
#
# An **attribution** gives each token of a text one number: how much it speaks for a class. Like a horoscope, it always
# looks plausible. But whoever claims *these words decided* can be tested: take them away, and the answer should fall,
# more than without random words. We test five methods, one of them a cheat:
# - **attention**: the weight that the last token, where the class is read, gives to each token, mean over all heads.
# - **longest words**: the length of a token's word. It has never seen the network: the cheat.
# - **gradient x input**: the gradient of the logit, that is, how steeply it rises with a token's embedding, times the
#   step to that embedding from the **baseline**, the mean embedding of the vocabulary.
# - **integrated gradients**: the same, with the mean gradient on the straight line from baseline to embedding. They add
#   up to the **gap**: the logit of the text minus that of a text of baselines.
# - **leave one out**, by deletion: what the logit loses when the token is deleted.

# %%
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import softmax

from experiments.explain.limits import limit_means
from experiments.explain.methods import explain, make_keep, parse
from experiments.explain.rationales import mark_rationales, order_tokens
from experiments.explain.sanity import correlate, make_fresh, randomise
from lab.device import Device
from lab.predict import predict
from lab.study import open_study
from lessons.checks import show
from lessons.checks.attributions import check_1, check_2

study = open_study("course-0", Device.choose("cpu"))  # gpt2-mini, fine-tuned on six emotions by `make lessons`
parsed = [parse(text, study.tokenizer) for text in study.draw_texts("test", 24).strings]  # tokens and words
probabilities = predict(study.clf, [text.ids for text in parsed], study.device)  # (24, 6)
classes = probabilities.argmax(axis=1)  # we explain the predicted class, right or wrong

# %% [markdown]
# ## Predict
#
# **Test 1: is it faithful?** Take away the three tokens of largest value (below 0 comes last). What probability does
# the class lose (*comprehensiveness*)? The control is random tokens. **Test 2: does it follow the network?** With a
# random head, the part that names classes, it mostly says something else. How alike are old and new values? 1: they
# rank alike, 0: unrelated. Order the five by what is lost. How many surely beat random tokens? Is the order the same
# if tokens are hidden (no other may attend to them) and if the baseline is in their place? Which change in test 2?
#
# ## Try it
#
# The function `explain` of `make explain` knows ten methods (docs/explain.md). What do ours say about one text?


# %%
def attribute(clf, text, k):
    """The value of each token for class k: (T,) by method."""
    values = explain(clf, text, study.device, [k], pairs=2).values  # (T, 1) by method
    names = ("attention", "gradient_x_input", "integrated_gradients", "leave_one_out_delete")
    cheat = np.array([float(len(text.words[group])) for group in text.groups])
    return {"longest words": cheat} | {name.replace("_", " "): values[name][:, 0] for name in names}


attributed = [attribute(study.clf, text, k) for text, k in zip(parsed, classes, strict=True)]
methods = list(attributed[0])
print(parsed[2].text, "->", study.clf.labels[classes[2]])
for method, values in attributed[2].items():
    print(f"{method:20}", [parsed[2].pieces[i][0] for i in order_tokens(values)[:3]])

# %% [markdown]
# Test 1, by `hide` and by `fill` with the baseline. (The last token is read: as it cannot be hidden, it is filled.)

# %%
rng, lost = np.random.default_rng(0), {"hide": [], "fill": []}
for text, k, by_method in zip(parsed, classes, attributed, strict=True):
    orders = [*map(order_tokens, by_method.values()), *(rng.permutation(len(text.ids)) for _ in range(10))]
    marked = mark_rationales(np.stack(orders), [3])[:, 0]  # bool (15, T): by 5 methods, and 10 times at random
    for removal, rows in lost.items():
        logits = make_keep(study.clf, text.ids, removal, study.device)(np.vstack([marked | True, ~marked]))  # (30, 6)
        whole, without = softmax(logits, axis=1)[:, k].reshape(2, 15)  # with all tokens, without the marked ones
        rows.append([*(whole - without)[:5], (whole - without)[5:].mean()])
hide, fill = (np.array(rows) for rows in lost.values())  # (24, 6), random tokens last
figure, both = plt.subplots(1, 2, figsize=(11, 2.5), layout="constrained", sharex=True, sharey=True)
for axes, removal, losses in zip(both, lost, (hide, fill), strict=True):
    beyond = losses[:, :5] - losses[:, 5:]
    (low, high), mean = limit_means(beyond), beyond.mean(axis=0)  # 95 % limits that hold for all five at once
    axes.barh(methods, mean, xerr=(mean - low, high - mean))
    axes.set(title=f"{removal}: lost beyond random tokens", ylim=(4.5, -0.5))
plt.show()

# %%
alike = []  # test 2, on four texts
for i in range(4):
    fresh = make_fresh(study.clf, seed=0, purpose=str(i))  # random weights, others for each text
    others = attribute(randomise(study.clf, fresh, ["head"]), parsed[i], classes[i])
    alike.append([correlate(attributed[i][method], others[method]) for method in methods])  # of ranks (Spearman)
measured = {
    "probability at first": probabilities.max(axis=1).mean(),
    **dict(zip([f"hide: {method}" for method in [*methods, "random tokens"]], hide.mean(axis=0), strict=True)),
    **{f"fill: {methods[i]}": fill[:, i].mean() for i in (3, 4)},
    "hide, beyond random tokens, lower limit: attention": limit_means(hide[:, :5] - hide[:, 5:])[0][1],
    **{f"random head, alike: {methods[i]}": np.mean(alike, axis=0)[i] for i in (1, 2)},
}
show(measured)

# %% [markdown]
# ## What came out
#
# | measured | value |
# |---|---|
# | probability at first | 0.81 ± 0.02 |
# | hide: longest words | 0.18 ± 0.05 |
# | hide: attention | 0.26 ± 0.05 |
# | hide: gradient x input | 0.05 ± 0.03 |
# | hide: integrated gradients | 0.43 ± 0.03 |
# | hide: leave one out delete | 0.51 ± 0.03 |
# | hide: random tokens | 0.10 ± 0.02 |
# | fill: integrated gradients | 0.53 ± 0.03 |
# | fill: leave one out delete | 0.45 ± 0.03 |
# | hide, beyond random tokens, lower limit: attention | -0.05 ± 0.04 |
# | random head, alike: attention | 1 |
# | random head, alike: gradient x input | 0.0 ± 0.2 |
#
# Over 24 texts attention loses 0.26 of 0.81, the cheat 0.18, gradient x input 0.05, where random tokens lose 0.10. All
# three have limits that reach below 0 (attention: -0.05), so none surely beats random tokens; only the last two do.
# Attention is blind to the head (1). Gradient x input is not (0.0), yet fails test 1: to pass one is not enough. **And
# test 1 takes sides**: `hide` is close to deleting: leave one out leads (0.51 to 0.43). `fill` puts in the baseline of
# both gradient methods: integrated gradients lead (0.53 to 0.45).
#
# ## What it does not mean
#
# - Faithful is not right: some of these 24 predictions are wrong, and a wrong one has a faithful explanation, too.
# - A mean says little about one text; and 24 do not show which of the two best leads, nor that 0.05 is below chance.
#
# ## Exercises
#
# **1.** In per cent: a class has 90; without the three tokens that a method marks 70; without three random tokens 60.
# What is the method's comprehensiveness beyond random tokens, as a share (1: all)? What does its sign say?

# %%
answer_1 = None
check_1(answer_1)

# %% [markdown]
# **2.** Write integrated gradients, `answer_2 = function`: of `gradients` (S, T, C), at the middles of S equal pieces
# of the line from `baseline` to `x`, of `x` and of `baseline`, (T, C) each; all torch tensors. It returns values, (T,).

# %%
answer_2 = None
check_2(answer_2)
