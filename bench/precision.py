"""Does bf16 find what fp32 finds?"""

from dataclasses import replace

from scipy.stats import spearmanr

from lab.device import Device
from lab.texts import Texts
from model import load_classifier

from .contestants import Job, list_heads, sweep_headgate
from .slices import choose_medium
from .turns import take_turns


def correlate_bf16(folder: str, texts: Texts, n: int, device: Device) -> float:
    """Close every head in fp32 and in bf16, on n texts, and correlate the heads' mean effects on each class's logit.

    Returns Spearman's correlation for the class where it is lowest."""
    heads = list_heads(load_classifier(folder).config)
    fp32 = Job(folder, replace(device, precision="fp32"), texts, [[choose_medium(texts.lengths, n)]], heads)
    bf16 = replace(fp32, device=replace(device, precision="bf16"))
    outcomes = take_turns([sweep_headgate], [[fp32], [bf16]])
    means = [outcome.output.mean(axis=0).T for (outcome,) in outcomes]  # (K, U); the baseline would change no rank
    return min(spearmanr(*effects).statistic for effects in zip(*means, strict=True))
