import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from experiments.pretrain import figures


def test_the_losses_before_the_first_token_are_left_out_and_the_lowest_is_marked(tmp_path, saved):
    held_out = pd.DataFrame({"tokens": [0, 2e6, 4e6, 6e6], "split": "held-out", "loss": [10.8, 6.0, 5.0, 5.5]})
    train = pd.DataFrame({"tokens": [2e6, 4e6, 6e6], "split": "train", "loss": [7.0, 5.2, 4.0]})
    figures.draw_loss_curves(pd.concat([held_out, train]), tmp_path / "x.png", "mini")
    first, second, mark = saved[0].axes[0].get_lines()
    assert (first.get_label(), list(first.get_xdata()), list(first.get_ydata())) == ("held-out", [2, 4, 6], [6, 5, 5.5])
    assert (second.get_label(), list(second.get_ydata())) == ("train", [7, 5.2, 4])
    assert (mark.get_label(), set(mark.get_xdata())) == ("kept: 5.000 at 4 M tokens", {4})


HEADS = pd.DataFrame(
    [
        (layer, head, 0.1 * layer, 0.05 * head, scale * (layer - head), weights)
        for weights, scale in (("trained", 0.1), ("random", 0.001))
        for layer in range(2)
        for head in range(3)
    ],
    columns=["layer", "head", "previous_token", "induction", "loss_increase", "weights"],
)


@pytest.mark.filterwarnings("error")
def test_heads_are_a_whole_picture(tmp_path):
    figures.draw_heads(HEADS, tmp_path / "x.png")
    assert imread(tmp_path / "x.png")[..., :3].var() > 0.001


def test_heads_stand_by_layer_and_head_on_one_scale_for_both_weights(tmp_path, saved):
    figures.draw_heads(HEADS.sample(frac=1, random_state=0).sort_values("weights", ascending=False), tmp_path / "x.png")
    *maps, _, _, _ = saved[0].axes
    assert [axes.get_title().split("\n")[1] for axes in maps] == ["trained weights"] * 3 + ["random weights"] * 3
    increase = maps[2].images[0]
    np.testing.assert_allclose(increase.get_array(), [[0, -0.1, -0.2], [0.1, 0, -0.1]], atol=1e-12)
    assert [text.get_text() for text in maps[0].texts] == ["0.00"] * 3 + ["0.10"] * 3
    assert (maps[2].get_xlabel(), maps[2].get_ylabel()) == ("head", "layer")
    assert increase.get_clim() == maps[5].images[0].get_clim() == (-0.2, 0.2)
    assert maps[0].images[0].get_clim() == (0, 0.1)
