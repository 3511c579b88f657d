# %% [markdown]
# # 4. Ablation: solutions
#
# These cells go on where the lesson ends.
#
# **1.** n subspaces and the head are n + 1 draws, and each is the largest equally often: 1 / (n + 1) = 0.01.

# %%
answer_1 = 99
check_1(answer_1)

# %% [markdown]
# **2.** All texts, all heads and all tokens are alike, so their axes have size 1. `masks.close_attention` of `model`
# builds the same.

# %%
import torch

answer_2 = torch.ones(1, 6, 1, 1)
answer_2[:, 2] = 0
check_2(answer_2)
ids = torch.tensor([texts.sequences[0]])
print(study.clf(ids).softmax(dim=1), study.clf(ids, head_gate=answer_2).softmax(dim=1))
