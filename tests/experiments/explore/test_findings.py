"""What `make ablate` found, joined and ranked by hand from a small table."""

import json
from dataclasses import replace

import pytest

from experiments.explore.findings import read_findings

COLUMNS = "kind,layer,head,region,fill,split,class,metric,n,baseline,ablated,effect,ci_low,ci_high,p,p_corrected"
COLUMNS += ",share,share_low,share_high,verdict"
TABLE = f"""{COLUMNS}
head,0,0,,zero,test,all,accuracy,40,0.9,0.8,-0.1,-0.2,0.0,,,,,,
head,0,1,,zero,test,all,accuracy,40,0.9,0.6,-0.3,-0.4,-0.2,,,,,,
head,1,0,,zero,test,all,accuracy,40,0.9,1.0,0.1,0.0,0.2,,,,,,
head,0,0,,zero,test,joy,recall,10,0.7,0.5,-0.2,-0.3,-0.1,,,,,,
head,0,1,,zero,test,joy,recall,10,0.7,0.1,-0.6,-0.7,-0.5,,,,,,
head,1,0,,zero,test,joy,recall,10,0.7,0.8,0.1,0.0,0.2,,,,,,
head,0,0,,zero,test,joy,specific_margin_tempered,10,2.0,1.0,-1.0,-1.1,-0.9,,,-0.5,-0.6,-0.4,matters
head,0,1,,zero,test,joy,specific_margin_tempered,10,2.0,1.9,-0.1,-0.2,0.0,,,-0.05,-0.1,0.01,negligible
head,1,0,,zero,test,joy,specific_margin_tempered,10,2.0,3.6,1.6,1.5,1.7,,,0.8,0.7,0.9,matters
head,0,0,,zero,test,joy,log_prob,10,-0.5,-0.9,-0.4,-0.5,-0.3,,,,,,
head,0,0,,zero,val,joy,recall,10,0.7,0.0,-0.7,-0.8,-0.6,,,,,,
head,0,0,,mean,test,joy,recall,10,0.7,0.6,-0.1,-0.2,0.0,,,,,,
head,0,1,,mean,test,joy,recall,10,0.7,0.5,-0.2,-0.3,-0.1,,,,,,
mlp,1,,,zero,test,joy,recall,10,0.7,0.0,-0.7,-0.8,-0.6,,,,,,
mlp,0,,,zero,test,joy,recall,10,0.7,,,,,,,,,,
heads,0,,,zero,test,joy,recall,10,0.7,0.5,-0.2,-0.3,-0.1,,,,,,
layer,0,,,zero,test,joy,recall,10,0.7,0.5,-0.2,-0.3,-0.1,,,,,,
mask,0,,self,zero,test,joy,recall,10,0.7,0.5,-0.2,-0.3,-0.1,,,,,,
"""


@pytest.fixture
def run(subject, tmp_path):
    """A subject whose run has tables of its own weights."""
    folder = tmp_path / "one" / "ablate"
    folder.mkdir(parents=True)
    (folder / "effects.csv").write_text(TABLE)
    (folder / "study.json").write_text(json.dumps({"weights": subject.weights}))
    return replace(subject, run=tmp_path / "one")


def by_unit(rows):
    return {(row["kind"], row["layer"], row["head"], row["fill"], row["class"]): row for row in rows}


def test_rows_are_joined_and_ranked(run):
    found = read_findings(run)
    assert found["why"] is None
    rows = by_unit(found["rows"])
    assert len(rows) == len(found["rows"]) == 12
    assert rows["head", 0, 0, "zero", "joy"] == {
        **{"kind": "head", "layer": 0, "head": 0, "fill": "zero", "class": "joy", "n": 10},
        **{"baseline": 0.7, "effect": -0.2, "ci_low": -0.3, "ci_high": -0.1},  # of recall
        **{"share": -0.5, "share_low": -0.6, "share_high": -0.4, "verdict": "matters"},
        **{"rank": 2, "of": 3},  # 0.8 is larger; by recall it would be another order
    }
    ranks = {unit[1:3]: row["rank"] for unit, row in rows.items() if unit[0] == "head" and unit[3:] == ("zero", "joy")}
    assert ranks == {(1, 0): 1, (0, 0): 2, (0, 1): 3}
    everywhere = {unit[1:3]: row for unit, row in rows.items() if unit[4] == "all"}
    assert {unit: row["effect"] for unit, row in everywhere.items()} == {(0, 0): -0.1, (0, 1): -0.3, (1, 0): 0.1}
    assert everywhere[0, 1]["rank"] == 1  # without shares by the effect, and equal ones share a place
    assert everywhere[0, 0]["rank"] == everywhere[1, 0]["rank"] == 2
    assert all(row["share"] is None and row["verdict"] is None for row in everywhere.values())


def test_each_fill_and_kind_has_ranks_of_its_own(run):
    rows = by_unit(read_findings(run)["rows"])
    assert [rows["head", 0, head, "mean", "joy"]["rank"] for head in (0, 1)] == [2, 1]
    assert rows["head", 0, 0, "mean", "joy"]["of"] == 2
    mlp = rows["mlp", 1, None, "zero", "joy"]
    assert (mlp["effect"], mlp["rank"], mlp["of"], mlp["share"]) == (-0.7, 1, 2, None)
    assert rows["heads", 0, None, "zero", "joy"]["of"] == rows["layer", 0, None, "zero", "joy"]["of"] == 1


def test_what_is_not_a_number_is_null(run):
    found = read_findings(run)
    row = by_unit(found["rows"])["mlp", 0, None, "zero", "joy"]
    assert (row["effect"], row["ci_low"], row["rank"]) == (None, None, None)
    json.dumps(found, allow_nan=False)


def test_classes_keep_odd_names(run):
    path = run.run / "ablate" / "effects.csv"
    path.write_text(TABLE.replace("joy", "nan"))
    assert {row["class"] for row in read_findings(run)["rows"]} == {"all", "nan"}


def test_tables_of_other_weights_are_not_shown(run):
    (run.run / "ablate" / "study.json").write_text(json.dumps({"weights": "cd" * 32}))
    found = read_findings(run)
    assert found["rows"] == []
    assert found["why"] == f"{run.run}/ablate is of other weights; run `make ablate RUN=one` once more"


@pytest.mark.parametrize("name", ["effects.csv", "study.json"])
def test_without_tables_it_says_how_to_make_them(run, name):
    (run.run / "ablate" / name).unlink()
    assert read_findings(run) == {"why": "run `make ablate RUN=one` first, and start this page again", "rows": []}


def test_a_broken_study_is_said(run):
    (run.run / "ablate" / "study.json").write_text("{")
    found = read_findings(run)
    assert found["rows"] == []
    assert "study.json is not JSON" in found["why"]


BROKEN = ["", "kind,layer\n", TABLE.replace("share_low", "share_below"), TABLE.replace("head,0", "head,x")]


@pytest.mark.parametrize("content", BROKEN)
def test_a_table_that_cannot_be_read_does_not_stop_the_page(run, content):
    (run.run / "ablate" / "effects.csv").write_text(content)
    found = read_findings(run)
    assert found["rows"] == []
    assert "effects.csv" in found["why"]
    assert "make ablate RUN=one" in found["why"]


def test_a_language_model_has_none(language_subject):
    assert read_findings(language_subject) == {"why": "a language model has no corpus to ablate on", "rows": []}
