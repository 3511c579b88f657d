# %% [markdown]
# # 1. The forward pass: solutions
#
# These cells go on where the lesson ends.
#
# **1.** A layer from m to n numbers has m · n weights and n biases; a LayerNorm has C weights and C biases.

# %%
c_attn, attn_c_proj = C * 3 * C + 3 * C, C * C + C
c_fc, mlp_c_proj = C * 4 * C + 4 * C, 4 * C * C + C
answer_1 = c_attn + attn_c_proj + c_fc + mlp_c_proj + 2 * (C + C)  # 12 C² + 13 C
check_1(answer_1)

# %% [markdown]
# **2.** Mean and variance are those of one vector, so along the last axis, and the variance divides by C, not by C - 1.


# %%
def my_layer_norm(x, weight, bias, eps):
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred**2).mean(dim=-1, keepdim=True)
    return centred / (variance + eps).sqrt() * weight + bias


answer_2 = my_layer_norm
check_2(answer_2)
