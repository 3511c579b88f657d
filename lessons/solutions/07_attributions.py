# %% [markdown]
# # 7. Which words: solutions
#
# These cells go on where the lesson ends.
#
# **1.** Comprehensiveness is what is lost without the marked words, 90 - 30; random words lose 90 - 70 as well.

# %%
answer_1 = ((90 - 30) - (90 - 70)) / 100
check_1(answer_1)

# %% [markdown]
# **2.** The mean gradient over the points of the way, times the way, summed over the numbers of an embedding.


# %%
def my_integrated_gradients(gradients, x, baseline):
    return (gradients.mean(dim=0) * (x - baseline)).sum(dim=-1)


answer_2 = my_integrated_gradients
check_2(answer_2)
