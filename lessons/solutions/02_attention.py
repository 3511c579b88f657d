# %% [markdown]
# # 2. Attention: solutions
#
# These cells go on where the lesson ends.
#
# **1.** Two conditions: a key is not later than its query, and not more than w - 1 places before it. The library has
# this mask as `masks.band`.


# %%
def window_mask(T, w):
    query, key = torch.arange(T)[:, None], torch.arange(T)
    return (key <= query) & (key > query - w)


answer_1 = window_mask
check_1(answer_1)

# %% [markdown]
# **2.** Cut, the second and third weight stay 3/10 and 1/5. Masked, they are divided by their sum, 1/2. The value of
# the hidden key counts in neither.

# %%
values, kept = torch.tensor([6.0, 1.0, 3.0]), torch.tensor([0.0, 0.3, 0.2])
cut = (kept * values).sum()
answer_2 = (cut / kept.sum(), cut)
check_2(answer_2)
