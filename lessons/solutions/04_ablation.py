# %% [markdown]
# # 4. Ablation: solutions
#
# These cells go on where the lesson ends.
#
# **1.** If the head were nothing special, it would be one more random draw. So it is counted in, above and below.

# %%
from model import masks

answer_1 = (3 + 1) / (39 + 1)
check_1(answer_1)

# %% [markdown]
# **2.** All texts, all heads and all tokens are alike, so their axes have size 1. `masks.close_attention` builds it.

# %%
answer_2 = masks.close_attention(study.clf.config, [2])  # (1, L, 1, 1), 0 in layer 2
check_2(answer_2)
