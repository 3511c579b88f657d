# %% [markdown]
# # 3. From language model to classifier: solutions
#
# These cells go on where the lesson ends.
#
# **1.** A position counts if it lies before `lengths` and not before `lengths - n`. Divided by how many count, a text
# of fewer than n tokens comes out right as well.


# %%
def average_last(x, lengths, n):
    position, end = torch.arange(x.shape[1]), lengths[:, None]
    chosen = ((position < end) & (position >= end - n)).float()  # (B, T)
    return (x * chosen[:, :, None]).sum(dim=1) / chosen.sum(dim=1, keepdim=True)


answer_1 = average_last
check_1(answer_1)

# %% [markdown]
# **2.** Precision is what is right in a column by the column's sum, recall what is right in a row by the row's sum.
# Their harmonic mean is 2 · right / (row + column).

# %%
confusion = np.array([[6, 1, 1], [2, 2, 0], [1, 1, 2]])  # true class x predicted class
f1 = 2 * confusion.diagonal() / (confusion.sum(axis=0) + confusion.sum(axis=1))
answer_2 = f1.mean()  # (12/17 + 1/2 + 4/7) / 3
check_2(answer_2)
