# %% [markdown]
# # 8. Vectors: solutions
#
# These cells go on where the lesson ends.
#
# **1.** Six texts make 15 pairs. Each class has 3 pairs; the groups of two and four texts have 1 and 6. Both share the
# pair of the first two texts, and the 3 pairs of class b.

# %%
A, B, S, M = 3 + 3, 1 + 6, 1 + 3, 15
expected = A * B / M
answer_1 = (S - expected) / ((A + B) / 2 - expected)
check_1(answer_1)

# %% [markdown]
# **2.** The mean vector is that over the texts, along the first axis; a length is that of one text, along the last.


# %%
def find_centred_cosines(x):
    from_mean = x - x.mean(axis=0)
    unit = from_mean / (from_mean**2).sum(axis=1, keepdims=True) ** 0.5
    return unit @ unit.T


answer_2 = find_centred_cosines
check_2(answer_2)
cosines, n = find_centred_cosines(raw), len(raw)
print((cosines.sum() - n) / (n * (n - 1)))  # the mean over pairs of two different texts: of a text with itself it is 1
