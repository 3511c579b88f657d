"""Every command on a GPT-Neo that `transformers` wrote, whose texts are longer than its window: each ends well, and a
number of its main table is what `transformers` makes of the same weights. Then one of the published 125M shape."""

import json
import shutil
from pathlib import Path

import commands
import httpx2
import numpy as np
import pandas as pd
import pytest
import test_explore
import torch
from commands import one_line
from hooked import Pair, find_merge, patch
from parity import check_parity
from pictures_on_disk import leave_undrawn
from small_run import write_corpus
from tiny import difference
from torch.nn import functional as F

import ablate
import attend
import explain
import patch as patch_script
import pretrain
import probe
import prompt
import train
import verify
from data.books import consecutive_blocks, read_books
from data.prompts import read_templates
from experiments.embed.sites import tabulate_sites
from experiments.embed.spaces import Spaces
from experiments.patch.cells import Cell, Metric, patch_cells, record
from lab.device import Device
from lab.label_words import choose_words
from lab.study import open_study
from lab.sweep import collect_logits, fill_zeros
from lab.units import each_head
from model import GPT2Config, Tokenizer, load_lm, save
from model.layouts import config_to_hf
from model.names import EMBEDDED

pytestmark = pytest.mark.slow
CPU = Device(torch.device("cpu"), "fp32")
TOKENIZER = Tokenizer.load("gpt2-mini")
LABELS, WINDOW, H, D = ["anger", "fear", "joy"], 3, 3, 4
TRAIN = ("--model", "neo", "--corpus", "corpus.txt", "--epochs", "3", "--lr", "0.02", "--dropout", "0")


def run(monkeypatch, script, *arguments):
    """The exit code of `python SCRIPT.py arguments`."""
    return commands.exit_code(monkeypatch, script, "--device", "cpu", *arguments)


@pytest.fixture(scope="module")
def trained_neo(tmp_path_factory):
    """A working folder with the checkpoint `neo`, whose second layer sees three tokens, and the run `one` from it."""
    import transformers

    here = tmp_path_factory.mktemp("neo")
    shape = dict(num_layers=2, num_heads=H, hidden_size=H * D, max_position_embeddings=256, window_size=WINDOW)
    torch.manual_seed(0)
    config = transformers.GPTNeoConfig(
        **shape, attention_types=[[["global", "local"], 1]], initializer_range=0.3, resid_dropout=0.0
    )
    transformers.GPTNeoForCausalLM(config).save_pretrained(here / "neo")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(EMBEDDED / name, here / "neo")
    write_corpus(here / "corpus.txt", 60)
    with pytest.MonkeyPatch.context() as changes:
        changes.chdir(here)
        leave_undrawn(changes)
        assert run(changes, train, *TRAIN, "--run", "one") == 0
    return here


@pytest.fixture(autouse=True)
def here(trained_neo, tmp_path, monkeypatch):
    """A copy of it to work in, without any data of nltk; pictures stay empty."""
    shutil.copytree(trained_neo, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path / "nothing")])
    for place in ("lab.figures.save", "lab.figures.save_twice"):
        monkeypatch.setattr(place, lambda figure, path, *name: path.touch())


def open_hf(folder="runs/one", architecture="GPTNeoForSequenceClassification"):
    import transformers

    load = getattr(transformers, architecture).from_pretrained
    return load(folder, attn_implementation="eager", dtype=torch.float32).eval()


def read_table(name, folder="runs/one"):
    return pd.read_csv(f"{folder}/{name}.csv", keep_default_na=False, na_values=[""])


def read_test():
    """The test texts as token ids, and their classes as numbers."""
    rows = read_table("predictions").query("split == 'test'")
    sequences = [TOKENIZER.encode(text) for text in rows["text"]]
    assert max(map(len, sequences)) > 2 * WINDOW
    return sequences, [LABELS.index(label) for label in rows["label"]]


@torch.no_grad()
def log_probs(hf, sequences):
    """(N, K) of a classifier, text by text."""
    return torch.cat([hf(torch.tensor([ids])).logits.log_softmax(dim=-1) for ids in sequences])


@torch.no_grad()
def close_head(hf, layer, head):
    """Weight surgery: nobody reads this head any more."""
    find_merge(hf.transformer.h[layer]).weight[:, head * D : (head + 1) * D] = 0
    return hf


def test_train_predicts_what_transformers_does():
    rows = read_table("predictions")
    expected = log_probs(open_hf(), map(TOKENIZER.encode, rows["text"])).exp()
    np.testing.assert_allclose(rows[[f"p_{label}" for label in LABELS]], expected, atol=1e-5)
    assert rows["predicted"].nunique() == 3


def test_train_with_label_words_predicts_what_transformers_does(monkeypatch):
    assert run(monkeypatch, train, *TRAIN, "--head", "words", "--run", "words") == 0
    hf, rows = open_hf("runs/words", "GPTNeoForCausalLM"), read_table("predictions", "runs/words").iloc[::5]
    words = [TOKENIZER.encode(f" {word}")[0] for word in ("angry", "afraid", "happy")]
    for row in rows.itertuples():
        with torch.no_grad():
            logits = hf(torch.tensor([TOKENIZER.encode(f"{row.text}\nThe feeling of this text is")])).logits[0, -1]
        expected = logits[words].softmax(dim=0).tolist()
        assert [row.p_anger, row.p_fear, row.p_joy] == pytest.approx(expected, abs=1e-5)
    units = ("--units", "heads", "--rows", "0", "--controls", "0")
    assert run(monkeypatch, ablate, "--run", "words", *units) == 0


def test_ablate_closes_a_head_as_weight_surgery_does(monkeypatch):
    assert run(monkeypatch, ablate, "--units", "heads", "--rows", "0", "--controls", "0") == 0
    effects = read_table("ablate/effects").query("split == 'test' and `class` == 'all' and metric == 'log_prob'")
    rows = effects.query("kind == 'head' and fill == 'zero'").set_index(["layer", "head"])
    sequences, targets = read_test()
    for layer, head in ((0, 2), (1, 1)):
        right = log_probs(close_head(open_hf(), layer, head), sequences)[range(len(targets)), targets]
        assert rows.loc[(layer, head), "ablated"] == pytest.approx(right.mean().item(), abs=1e-5)
        assert abs(rows.loc[(layer, head), "effect"]) > 1e-3


def test_attend_scores_a_local_head_against_its_window(monkeypatch):
    assert run(monkeypatch, attend) == 0
    rows = read_table("attend/heads").query("layer == 1 and head == 2 and `class` == 'all'").set_index("pattern")
    hf, scores, rates = open_hf(), [], []
    for ids in read_test()[0]:
        with torch.no_grad():
            weights = hf(torch.tensor([ids]), output_attentions=True).attentions[1][0, 2]
        scores.append(np.mean([weights[i, i - 1].item() for i in range(1, len(ids))]))
        rates.append(np.mean([1 / min(i + 1, WINDOW) for i in range(1, len(ids))]))
    assert rows.loc["previous", "score"] == pytest.approx(np.mean(scores), abs=1e-5)
    assert rows.loc["previous", "base_rate"] == pytest.approx(np.mean(rates))


def test_explain_leaves_words_out_as_transformers_would(monkeypatch):
    assert run(monkeypatch, explain, "--texts", "3") == 0
    rows = (
        read_table("explain/attributions").query("method == 'leave_one_out_delete'").rename(columns={"class": "label"})
    )
    texts = read_table("predictions").set_index(["split", "index"])["text"]
    hf = open_hf()
    for (split, index), of_text in rows.groupby(["split", "index"]):
        ids = TOKENIZER.encode(texts[split, index])
        for row in of_text.itertuples():
            with torch.no_grad():
                with_it, without = (hf(torch.tensor([some])).logits[0] for some in (ids, drop(ids, row.position)))
            expected = (with_it - without)[LABELS.index(row.label)].item()
            assert row.value == pytest.approx(expected, abs=1e-4)


def drop(ids, position):
    return ids[:position] + ids[position + 1 :]


def test_patch_puts_in_what_hooks_do(monkeypatch):
    assert run(monkeypatch, patch_script, "--pairs", "2", "--controls", "0", "--texts", "1") == 0
    pairs, rows = read_table("patch/pairs"), read_table("patch/patch").query("direction == 'denoise'")
    hf = open_hf()
    for row in pairs[pairs["kept"]].itertuples():
        answers = LABELS.index(row.clean_class), LABELS.index(row.corrupt_class)
        pair = Pair(hf, TOKENIZER.encode(row.corrupt), TOKENIZER.encode(row.clean), answers)
        own = rows[(rows["pair"] == row.pair) & rows["kind"].isin(["z", "k", "pattern"])]
        assert len(own) == 3 * 2 * H
        for cell in own.itertuples():
            expected = patch(pair, cell.kind, cell.layer, int(cell.head))[-1].item()
            assert cell.patched == pytest.approx(expected, abs=1e-4)


def test_probe_reads_the_lens_of_transformers(monkeypatch):
    assert run(monkeypatch, probe, "--words", "500") == 0
    lens = read_table("probe/lens").query("`class` == 'all'").set_index("layer")["accuracy"]
    hf, (sequences, targets) = open_hf(), read_test()
    for layer in range(2):
        right = []
        for ids, target in zip(sequences, targets, strict=True):
            with torch.no_grad():
                x = hf(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0, -1]
                right.append(hf.score(hf.transformer.ln_f(x)).argmax().item() == target)
        assert lens[layer] == pytest.approx(np.mean(right))


def test_embed_reads_the_stream_of_transformers(tmp_path):
    spaces = Spaces(open_study("one", CPU), tmp_path, 31, seed=0)  # the whole command takes a minute
    sites = tabulate_sites(spaces).query("pooling == 'last' and correction == 'none'").set_index(["model", "layer"])
    for name, folder in (("fine-tuned", "runs/one"), ("pretrained", "neo")):
        hf = open_hf(folder, "GPTNeoModel")
        with torch.no_grad():  # every text begins alike
            hidden = hf(torch.tensor([TOKENIZER.encode("i")]), output_hidden_states=True).hidden_states
        for layer in range(2):
            assert sites.loc[(name, layer), "norm_first"] == pytest.approx(hidden[layer].norm().item(), rel=1e-4)


def test_explore_closes_a_head_as_weight_surgery_does(monkeypatch, capsys):
    answers, body = [], {"text": "i felt at work with my friend again furious", "heads": [[1, 2]]}

    def ask():
        address = test_explore.wait_for_address(capsys, [])
        answers.append(httpx2.post(f"{address}api/run", json=body, timeout=60).json())

    with test_explore.interrupted(ask):
        assert test_explore.run_explore(monkeypatch, "--port", "0", "--no-open") == 130
    ids = [TOKENIZER.encode(body["text"])]
    before, after = (log_probs(hf, ids)[0].exp().tolist() for hf in (open_hf(), close_head(open_hf(), 1, 2)))
    assert answers[0]["before"] == pytest.approx(before, abs=1e-5)
    assert answers[0]["after"] == pytest.approx(after, abs=1e-5)
    assert after != pytest.approx(before, abs=1e-3)


def test_prompt_asks_as_transformers_would(monkeypatch):
    assert run(monkeypatch, prompt, "--shots", "0", "--template", "feeling") == 0
    rows = read_table("prompt/scores").query("split == 'test' and correction == 'direct' and prior == 'uniform'")
    [row] = rows.query("template == 'feeling' and verbalizer == 'first word'").to_dict("records")
    [template] = read_templates(["feeling"])
    words = [ids[0][0] for ids in choose_words(LABELS, (), TOKENIZER).ids]
    hf, right, mass = open_hf("neo", "GPTNeoForCausalLM"), [], []
    for ids, target in zip(*read_test(), strict=True):
        prompt_ids = TOKENIZER.encode(template.fill(TOKENIZER.decode(ids)))
        with torch.no_grad():
            p = hf(torch.tensor([prompt_ids])).logits[0, -1].double().softmax(dim=0)[words]
        right.append(p.argmax().item() == target)
        mass.append(p.sum().item())
    assert row["accuracy"] == pytest.approx(np.mean(right))
    assert row["label_mass"] == pytest.approx(np.mean(mass), rel=1e-4)


def test_pretrain_leaves_the_loss_that_transformers_has(monkeypatch):
    config = json.loads(Path("neo/config.json").read_text()) | {"max_position_embeddings": 31}
    Path("neo/config.json").write_text(json.dumps(config))
    book = Path("corpus.txt").read_text()
    Path("books.txt").write_text(f"{book}\n<|endoftext|>\n{book[:3000]}\n")
    monkeypatch.setattr("experiments.pretrain.training.EVALUATIONS", 2)
    options = ("--model", "neo", "--corpus", "books.txt", "--batch-size", "4", "--epochs", "1", "--run", "new")
    assert run(monkeypatch, pretrain, *options) == 0
    blocks = consecutive_blocks(read_books("books.txt", TOKENIZER).held_out, 31)
    with torch.no_grad():
        logits = open_hf("runs/new", "GPTNeoForCausalLM")(blocks[:, :-1].long()).logits
    loss = F.cross_entropy(logits.flatten(0, 1), blocks[:, 1:].flatten().long()).item()
    measured = json.loads(Path("runs/new/metrics.json").read_text())["held_out"]["loss"]
    assert measured == pytest.approx(loss, rel=1e-4)
    assert len(read_table("heads", "runs/new")) == 2 * 2 * H  # trained and random


def test_verify_is_about_another_network(monkeypatch, capsys):
    assert run(monkeypatch, verify, "--model", "neo") == 2
    assert "expected the shape of the 124M gpt2" in one_line(capsys)


# The published shape


@pytest.fixture(scope="module")
def full(reference):
    """A random classifier of the 125M shape: of transformers, and ours from its folder."""
    shape = config_to_hf(GPT2Config.preset("gpt-neo-125m"))
    # Larger weights, whose scores nothing divides by 8 here, would make softmaxes that rounding decides.
    return reference("GPTNeoForSequenceClassification", **shape | {"initializer_range": 0.025, "num_labels": 3})


def draw_ids(*lengths):
    rng = np.random.default_rng(0)
    return [rng.integers(1, 50257, n).tolist() for n in lengths]


def test_the_125m_shape_classifies_as_transformers_also_beyond_its_window(full):
    for ids in draw_ids(7, 259):
        check_parity(full.ours, full.hf, torch.tensor([ids]), torch.tensor([len(ids)]))


def test_the_125m_shape_is_a_language_model_that_transformers_opens_again(full, tmp_path):
    lm = load_lm(full.folder)
    save(lm, tmp_path / "saved")
    hf = open_hf(tmp_path / "saved", "GPTNeoForCausalLM")
    [ids] = draw_ids(259)
    check_parity(lm, hf, torch.tensor([ids]), torch.tensor([259]))
    assert torch.equal(
        hf.transformer.h[3].attn.attention.k_proj.weight, full.hf.transformer.h[3].attn.attention.k_proj.weight
    )


def test_the_125m_shape_is_ablated_and_patched_as_by_hand(full):
    hf, clf, width = full.hf, full.ours, 64
    texts = draw_ids(259, 9)
    heads = [(1, 4), (10, 11)]
    ablations = [each for each in each_head(clf.config) if (each.layer, each.head) in heads]
    assert len(ablations) == 2
    logits = collect_logits(clf, texts, ablations, [fill_zeros], CPU)[:, :, 0]
    for u, (layer, head) in enumerate(heads):
        weight = find_merge(hf.transformer.h[layer]).weight.data[:, head * width : (head + 1) * width]
        kept = weight.clone()
        weight.zero_()
        with torch.no_grad():
            expected = torch.cat([hf(torch.tensor([ids])).logits for ids in texts])
        weight.copy_(kept)
        assert difference(torch.from_numpy(logits[:, u]).float(), expected) < 1e-4
    base, source = draw_ids(9, 9)
    metric, pair = Metric.between(clf, (2, 0)), Pair(hf, base, source, (2, 0))
    places = [("z", 1, 4), ("k", 11, 7), ("mlp", 6, None)]
    cells = [Cell(kind, layer, head, 8) for kind, layer, head in places]
    got = patch_cells(metric, record(clf.trunk, base), record(clf.trunk, source), cells, tokens=500)
    expected = torch.stack([patch(pair, *place)[8] for place in places])
    assert difference(got, expected) < 1e-4
