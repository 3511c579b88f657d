# %% [markdown]
# # 6. Where does it come from: solutions
#
# These cells go on where the lesson ends.
#
# **1.** The base is the clean run. The metric moves by 6 - 1 = 5 of the 6 - (-2) = 8 that lie between the two runs.

# %%
answer_1 = (6 - 1) / (6 - (-2))
check_1(answer_1)

# %% [markdown]
# **2.** The gate is 1 everywhere but at the one cell. The fill may hold all heads of the clean run: where the gate is
# 1, nobody reads it.


# %%
def patch_head(clean, corrupt, layer, head, position):
    fill = clean.stacked("z")  # (1, L, H, T, D)
    gate = torch.ones(fill.shape[:-1])
    gate[:, layer, head, position] = 0
    return {"head_gate": gate, "head_fill": fill}


answer_2 = patch_head
check_2(answer_2)

# %% [markdown]
# What head (4, 3) does at the last token alone, for the first pair: nearly all of what it does at all tokens.

# %%
him, her = pairs[0].answers
logits = lm(torch.tensor([pairs[0].corrupt_ids]), **patch_head(clean, corrupt, 4, 3, -1))[0, -1]
print(f"{((logits[him] - logits[her] - bottom) / (top - bottom)).item():.2f} of the gap comes back")
