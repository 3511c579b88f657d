"""What two heads do together, by hand."""

import numpy as np
import pandas as pd

from experiments.ablate.interactions import measure_interactions
from lab.effects import Readings
from lab.stats import resamples

TARGETS = np.array([0, 1, 0, 1, 1])
LABELS = ["joy", "love", "fear"]


def readings_of(*margins):
    """Readings of units whose log-odds of class k on text i are `margins[unit][i] + 100 * k`; nothing else is read."""
    log_odds = np.array(margins, dtype=float)[..., None] + 100 * np.arange(3)
    return Readings(np.nan * log_odds, log_odds, np.nan * log_odds)


BASELINE = readings_of([1, 2, 3, 4, 5])
SINGLES = readings_of(
    [0, 2, 3, 4, 5], [1, 1, 1, 1, 1], [3, 0, 7, 2, 9]
)  # effects -1 0 0 0 0; 0 -1 -2 -3 -4; 2 -2 4 -2 4
PAIRS = readings_of([0, 0, 0, 0, 0], [6, 6, 6, 6, 6])  # effects -1 -2 -3 -4 -5; 5 4 3 2 1


def test_a_pair_is_held_against_the_sum_of_its_two_heads():
    table = measure_interactions(BASELINE, SINGLES, PAIRS, [(0, 1), (2, 1)], TARGETS, LABELS)
    columns = ["pair", "class", "n", "pair_effect", "first_effect", "second_effect", "interaction"]
    expected = [  # joy has texts 0 and 2, love 1, 3 and 4; fear has none and no row
        (0, "joy", 2, -2, -0.5, -1, -0.5),
        (1, "joy", 2, 4, 3, -1, 2),
        (0, "love", 3, -11 / 3, 0, -8 / 3, -1),
        (1, "love", 3, 7 / 3, 0, -8 / 3, 5),
    ]
    pd.testing.assert_frame_equal(table[columns], pd.DataFrame(expected, columns=columns), check_dtype=False)


def test_the_interval_is_over_the_texts_of_the_class():
    table = measure_interactions(BASELINE, SINGLES, readings_of([6, 6, 6, 6, 6]), [(2, 1)], TARGETS, LABELS)
    beyond = np.array([4 + 2 + 1, 2 + 2 + 3, 1 - 4 + 4])  # on texts 1, 3 and 4
    love = table[table["class"] == "love"].iloc[0]
    assert love["interaction"] == beyond.mean()
    drawn = np.concatenate([weights @ beyond / 3 for weights in resamples(3)])
    assert [love["ci_low"], love["ci_high"]] == np.percentile(drawn, [2.5, 97.5]).tolist()
