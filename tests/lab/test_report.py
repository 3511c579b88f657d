"""How reports are filled, and how numbers, labels and tables are written in them."""

import jinja2
import pandas as pd
import pytest

from lab.report import label, number, p_value, render, with_interval


def test_a_template_is_filled_with_its_filters_and_names_that_nobody_gave_are_errors(tmp_path):
    template = tmp_path / "report.md.jinja"
    template.write_text("{% for name in names %}\n- {{ name | label }}: {{ 0.1234 | number }}\n{% endfor %}\nend\n")
    assert render(template, names=["a|b", "<c>"]) == "- a\\|b: 0.12\n- \\<c\\>: 0.12\nend\n"
    template.write_text("{{ table(['a', 'b'], [['1', '2']]) }}")
    assert render(template) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    template.write_text("{{ absent }}")
    with pytest.raises(jinja2.UndefinedError, match="absent"):
        render(template)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.236, "1.24"), (-0.1, "-0.10"), (0.0999, "0.10"), (0.01234, "0.012"), (-0.0005, "-0.00050"), (0, "0.00")],
)
def test_numbers_have_two_decimals_or_two_digits(value, text):
    assert number(value) == text


def test_intervals_p_values_and_labels():
    effects = pd.DataFrame({"class": ["joy"], "effect": [-0.5], "ci_low": [-0.7], "ci_high": [0.02]})
    [row] = effects.to_dict("records")
    assert (row["class"], with_interval(row, "effect")) == ("joy", "-0.50 [-0.70, 0.020]")
    assert [p_value(p) for p in (0.00099, 0.001, 0.04999)] == ["< 0.001", "0.001", "0.050"]
    assert label("so\n*many*  [a](b)") == r"so \*many\* \[a\](b)"
