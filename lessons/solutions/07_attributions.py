# %% [markdown]
# # 7. Which words: solutions
#
# These cells go on where the lesson ends.
#
# **1.** Comprehensiveness is what is lost without the marked tokens, 90 - 70; without random ones 90 - 60 is lost. The
# sign says that the network needs the marked tokens less than random ones: the method is worse than drawing lots.

# %%
answer_1 = ((90 - 70) - (90 - 60)) / 100
check_1(answer_1)

# %% [markdown]
# **2.** The mean gradient over the points of the way, times the way, summed over the numbers of an embedding.


# %%
def my_integrated_gradients(gradients, x, baseline):
    return (gradients.mean(dim=0) * (x - baseline)).sum(dim=-1)


answer_2 = my_integrated_gradients
check_2(answer_2)
