# %% [markdown]
# # 5. Probes: solutions
#
# These cells go on where the lesson ends.
#
# **1.** Accuracy minus that of the control task. The most frequent label is another control.

# %%
answer_1 = 0.90 - 0.88
check_1(answer_1)

# %% [markdown]
# **2.** The length of the part along a unit vector is a product with it. Measured from the mean, the mean stays.


# %%
def remove(x, direction):
    unit = direction / direction.norm()
    centred = x - x.mean(dim=0)
    return x - torch.outer(centred @ unit, unit)


answer_2 = remove
check_2(answer_2)
