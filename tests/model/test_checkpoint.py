"""Folders in the Hugging Face layout, in and out: what fits, what is refused, and that nothing is half written."""

import json
import os
import re
import shutil
from dataclasses import replace

import huggingface_hub.constants
import pytest
import torch
from commands import line_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import C, K, V, difference, random_classifier, real, set_config, texts

import model.checkpoint
import model.names
from model import GPT2Config, InputError, Tokenizer, load_classifier, load_lm, save
from model.names import HUB

TEXTS = texts(7, 11)
LABELS = ["sadness", "joy", "love", "anger"]
WEIGHTS = "model.safetensors"
GPT2_SHA256 = "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"


@pytest.fixture
def foreign(lm_reference, tmp_path):
    """A copy of a folder that `transformers` saved: a language model."""
    return shutil.copytree(lm_reference.folder, tmp_path / "foreign")


@pytest.fixture
def foreign_classifier(clf_reference, tmp_path):
    return shutil.copytree(clf_reference.folder, tmp_path / "foreign")


@pytest.fixture
def ours(tiny, tmp_path):
    """A classifier of our own with random weights, and the folder it was saved to, which saving made."""
    classifier = random_classifier(tiny, LABELS)
    save(classifier, tmp_path / "runs" / "ours")
    return classifier, tmp_path / "runs" / "ours"


def rewrite(folder, change) -> None:
    """Save the folder's tensors again after `change` worked on the dict of them, without our metadata."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# From transformers (the parity tests compare what its prefixed folders hold).


def same_logits(model, reference) -> bool:
    return difference(model(*TEXTS), reference.ours(*TEXTS)) == 0


def unprefixed(tensors):
    for key in [key for key in tensors if key.startswith("transformer.")]:
        tensors[key.removeprefix("transformer.")] = tensors.pop(key)


def old_buffers(tensors):
    prefix = "transformer." if "transformer.wte.weight" in tensors else ""
    for layer in range(3):
        tensors[f"{prefix}h.{layer}.attn.bias"] = torch.ones(1, 1, 13, 13, dtype=torch.bool).tril()
        tensors[f"{prefix}h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)


def tied_head(tensors):
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()


def half(tensors):
    tensors |= {key: tensor.bfloat16() for key, tensor in tensors.items()}


@pytest.mark.parametrize(
    "changes",
    [(unprefixed,), (old_buffers,), (unprefixed, old_buffers), (tied_head,), (old_buffers, tied_head)],
    ids=lambda changes: " + ".join(change.__name__ for change in changes),
)
@pytest.mark.parametrize(("load", "kind"), [(load_lm, "lm_reference"), (load_classifier, "clf_reference")])
def test_a_checkpoint_loads_with_any_of_the_known_keys(request, tmp_path, load, kind, changes):
    reference = request.getfixturevalue(kind)
    folder = shutil.copytree(reference.folder, tmp_path / "foreign")
    for change in changes:
        rewrite(folder, change)
    assert same_logits(load(folder), reference)


def test_a_language_model_is_read_from_a_classifiers_folder(clf_reference):
    got = load_lm(clf_reference.folder).trunk(*TEXTS)
    assert torch.equal(got, clf_reference.ours.trunk(*TEXTS))


@pytest.mark.parametrize("load", [load_lm, load_classifier])
def test_half_precision_is_fp32_in_memory(foreign_classifier, load):
    rewrite(foreign_classifier, half)
    loaded = load(foreign_classifier)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert not loaded.training
    stored = load_file(foreign_classifier / WEIGHTS)["transformer.wte.weight"]
    assert torch.equal(loaded.trunk.wte.weight, stored.float())


def test_foreign_labels_are_read_in_the_order_of_the_heads_rows(clf_reference, foreign_classifier):
    assert load_classifier(foreign_classifier).labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")
    set_config(foreign_classifier, id2label={"2": "love", "0": "sadness", "3": "anger", "1": "joy"})
    assert load_classifier(foreign_classifier).labels == tuple(LABELS)


def test_two_classes_without_names_in_the_config_load(reference):
    """transformers leaves id2label out where it is its default."""
    two = reference("GPT2ForSequenceClassification", num_labels=2)
    assert two.ours.labels == ("LABEL_0", "LABEL_1")
    with torch.no_grad():
        expected = two.hf(TEXTS[0], attention_mask=real(*TEXTS).long()).logits
    assert difference(two.ours(*TEXTS), expected) < 1e-5


def test_dropout_of_a_classifier_can_be_replaced(foreign_classifier):
    assert load_classifier(foreign_classifier, dropout=0.25).config.dropout == 0.25
    assert load_classifier(foreign_classifier, dropout=0.25).config.attn_dropout == 0.25
    assert load_classifier(foreign_classifier).config.dropout == 0.0


# To transformers, and back.


@pytest.fixture
def with_real_vocabulary(tiny):
    """A classifier as narrow as the tiny one with the full vocabulary, so that 50256 can pad."""
    return random_classifier(replace(tiny, vocab_size=50257, dropout=0.2, attn_dropout=0.3), LABELS)


def test_transformers_opens_what_we_saved(with_real_vocabulary, tmp_path):
    """A padded batch without lengths or mask: HF finds the padding by the config's pad_token_id."""
    from transformers import AutoModelForSequenceClassification

    save(with_real_vocabulary, tmp_path)
    hf, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert hf.config.id2label == dict(enumerate(LABELS))
    assert hf.config.label2id == {label: i for i, label in enumerate(LABELS)}
    ids, lengths = texts(7, 11, 1, pad=50256)
    with torch.no_grad():
        assert difference(with_real_vocabulary(ids, lengths), hf.eval()(ids).logits) < 1e-5


def test_transformers_opens_our_language_model(lm_reference, tmp_path):
    from transformers import AutoModelForCausalLM

    save(lm_reference.ours, tmp_path)
    hf, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    with torch.no_grad():
        assert difference(hf.eval()(TEXTS[0]).logits, lm_reference.hf(TEXTS[0]).logits) < 1e-5


@pytest.mark.parametrize("labels", [None, LABELS], ids=["any labels", "its own labels"])
def test_saved_and_loaded_is_the_same(ours, labels, caplog):
    classifier, folder = ours
    loaded = load_classifier(folder, labels)
    assert torch.equal(loaded(*TEXTS), classifier(*TEXTS))
    assert (loaded.labels, loaded.config) == (tuple(LABELS), classifier.config)
    assert caplog.records == []  # our own file was checked against its SHA-256: nothing to say


def test_saved_in_half_precision_is_fp32_in_memory(ours, tmp_path):
    classifier, _ = ours
    save(classifier, tmp_path / "half", dtype=torch.float16)
    stored = load_file(tmp_path / "half" / WEIGHTS)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float16"
    loaded = load_classifier(tmp_path / "half")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.trunk.wte.weight, classifier.trunk.wte.weight.half().float())


def test_equal_models_make_equal_files_that_others_may_read_too(ours, tmp_path):
    classifier, folder = ours
    save(classifier, tmp_path / "half", dtype=torch.bfloat16)  # which does not touch the model
    save(classifier, tmp_path / "again")
    assert content(tmp_path / "again") == content(folder)
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_a_saved_classifier_with_its_tokenizer_is_a_pipeline(with_real_vocabulary, tmp_path):
    """Text in, label out, by transformers alone: the folder holds all that it needs, batches included."""
    from transformers import AutoTokenizer, pipeline

    tokenizer, written = Tokenizer.load("gpt2-mini"), ["i feel so happy", "what a sad, sad story 🙂"]
    save(with_real_vocabulary, tmp_path, tokenizer)
    assert AutoTokenizer.from_pretrained(tmp_path)(written)["input_ids"] == [tokenizer.encode(text) for text in written]
    for text, got in zip(written, pipeline("text-classification", str(tmp_path), batch_size=2)(written), strict=True):
        probabilities = with_real_vocabulary(torch.tensor([tokenizer.encode(text)])).softmax(-1)[0]
        assert got["label"] == LABELS[probabilities.argmax()]
        assert got["score"] == pytest.approx(probabilities.max().item(), abs=1e-5)


def test_a_saved_tokenizer_is_the_same_files(ours, tmp_path):
    tokenizer = Tokenizer.load("gpt2-mini")
    save(ours[0], tmp_path / "with", tokenizer)
    assert {name: content(tmp_path / "with")[name] for name in tokenizer.files} == tokenizer.files
    others = ["config.json", WEIGHTS, "tokenizer_config.json"]
    assert sorted(content(tmp_path / "with")) == sorted([*tokenizer.files, *others])


# Labels and heads.


def test_a_fresh_head_is_added_for_the_labels(foreign, lm_reference):
    torch.manual_seed(0)
    classifier = load_classifier(foreign, LABELS)
    assert classifier.labels == tuple(LABELS)
    assert classifier.score.weight.shape == (K, C)
    assert 0.01 < classifier.score.weight.std() < 0.03  # N(0, 0.02)
    assert torch.equal(classifier.trunk(*TEXTS), lm_reference.ours.trunk(*TEXTS))
    assert classifier(*TEXTS).isfinite().all()


def test_a_folder_without_head_wants_labels(foreign):
    with pytest.raises(InputError, match=r"no classification head.*labels"):
        load_classifier(foreign)


@pytest.mark.parametrize("labels", [LABELS[:3], [*LABELS, "fear"]], ids=str)
def test_other_labels_than_its_own_are_refused(ours, labels):
    with pytest.raises(InputError, match=f"sadness, joy, love, anger; expected {', '.join(labels)}"):
        load_classifier(ours[1], labels)


# What does not fit is refused, by name.


def test_missing_unexpected_and_mismatched_tensors_are_listed_by_name(foreign):
    def change(tensors):
        del tensors["transformer.h.1.ln_2.bias"], tensors["transformer.wpe.weight"]
        tensors["transformer.h.1.attn.q_norm.weight"] = torch.ones(3)
        tensors["transformer.h.3.ln_1.bias"] = torch.ones(C)
        tensors["transformer.h.2.mlp.c_fc.weight"] = tensors["transformer.h.2.mlp.c_fc.weight"].T.contiguous()
        tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"][:97].clone()

    rewrite(foreign, change)
    message = line_of(load_lm, foreign)
    assert "missing: h.1.ln_2.bias, wpe.weight;" in message
    assert "unexpected: transformer.h.1.attn.q_norm.weight, transformer.h.3.ln_1.bias;" in message
    assert f"transformer.wte.weight expected ({V}, {C}) got (97, {C})" in message
    assert f"transformer.h.2.mlp.c_fc.weight expected ({C}, {4 * C}) got ({4 * C}, {C})" in message


REFUSED = {  # the tensors added, and what loading says
    "a head of another width": (lambda wte: {"score.weight": torch.ones(K, C + 1)}, f"got ({K}, {C + 1})"),
    "both spellings": (
        lambda wte: {"wte.weight": wte.clone()},
        f"transformer.wte.weight in {WEIGHTS} and wte.weight in {WEIGHTS} are the same tensor",
    ),
    "an untied head": (lambda wte: {"lm_head.weight": wte + 1}, "lm_head.weight differs from wte.weight"),
    "integers": (
        lambda wte: {"transformer.ln_f.bias": torch.ones(C, dtype=torch.int8)},
        "transformer.ln_f.bias: expected floating-point numbers of at least 16 bits, got torch.int8",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tensors_that_do_not_fit_are_refused(foreign_classifier, name):
    added, message = REFUSED[name]
    rewrite(foreign_classifier, lambda tensors: tensors.update(added(tensors["transformer.wte.weight"])))
    assert message in line_of(load_classifier, foreign_classifier)


@pytest.mark.parametrize("load", [load_lm, load_classifier])
def test_a_config_that_is_not_implemented_is_refused(foreign_classifier, load):
    set_config(foreign_classifier, activation_function="gelu")
    with pytest.raises(InputError, match="foreign: headgate does not implement activation_function"):
        load(foreign_classifier)


@pytest.mark.parametrize(
    ("raw", "message"),
    [("{", "is not JSON"), ("", "is not JSON"), ("[1]", "expected a JSON object, got list"), (b"\xff", "is not JSON"),
     ("{}", "does not say model_type"), ('{"model_type": "gpt2"}', "does not say n_layer, n_head, n_embd"),
     (None, "expected config.json, there are generation")],
    ids=str,
)  # fmt: skip
def test_a_config_that_cannot_be_read_is_refused(foreign, raw, message):
    (foreign / "config.json").unlink()
    if raw is not None:
        (foreign / "config.json").write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    with pytest.raises(InputError, match=message):
        load_lm(foreign)


# Damage.


def test_a_folder_without_weights_is_refused(foreign):
    (foreign / WEIGHTS).unlink()
    with pytest.raises(
        InputError,
        match=f"expected {WEIGHTS}, there are config.json, generation_config.json, no weights; train.py --init",
    ):
        load_lm(foreign)


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_a_truncated_file_is_refused(foreign, size):
    whole = (foreign / WEIGHTS).read_bytes()
    (foreign / WEIGHTS).write_bytes(whole[:size])
    with pytest.raises(InputError, match="truncated or damaged"):
        load_lm(foreign)


def test_swapped_tensors_in_one_of_ours_are_refused(ours):
    """The same bytes under other names are not the same checkpoint."""
    with safe_open(ours[1] / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(ours[1] / WEIGHTS)
    a, b = "transformer.h.0.ln_1.bias", "transformer.h.0.ln_2.bias"
    tensors[a], tensors[b] = tensors[b], tensors[a]
    save_file(tensors, ours[1] / WEIGHTS, metadata=metadata)
    with pytest.raises(InputError, match=r"damaged.*SHA-256"):
        load_classifier(ours[1])


# Whole or not at all.


@pytest.mark.parametrize("replaced", range(4))
def test_a_save_that_fails_between_its_files_leaves_a_whole_checkpoint(ours, lm, monkeypatch, replaced):
    """Old or new, but not the weights of one with the config of the other."""
    before, calls, replace = content(ours[1]), [], os.replace

    def failing(*paths):
        calls.append(paths)
        if len(calls) == replaced + 1:
            raise OSError("no space left")
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr("model.files.os.replace", failing)
        with pytest.raises(OSError, match="no space left"):
            save(lm, ours[1], Tokenizer.load("gpt2-mini"))
    assert content(ours[1]) == before


def test_a_folder_in_the_way_of_a_file_leaves_the_old_checkpoint(ours, lm):
    (ours[1] / "config.json").unlink()
    (ours[1] / "config.json").mkdir()
    weights = (ours[1] / WEIGHTS).read_bytes()
    with pytest.raises(OSError, match=r"config\.json"):
        save(lm, ours[1])
    assert (ours[1] / WEIGHTS).read_bytes() == weights
    assert sorted(path.name for path in ours[1].iterdir()) == ["config.json", WEIGHTS]


def test_a_save_over_an_old_checkpoint_replaces_it_and_leaves_no_other_file(ours, lm):
    save(lm, ours[1])
    assert sorted(content(ours[1])) == ["config.json", WEIGHTS]
    assert torch.equal(load_lm(ours[1])(*TEXTS), lm(*TEXTS))


# Names. What is fetched from the hub, and how, is in test_hub.py.


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, and the tests are never allowed to ask the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("load", [load_lm, load_classifier, Tokenizer.load])
@pytest.mark.parametrize(
    "name",
    ["gpt3", "no/such/folder", "/no/such", "./gpt2", "../gpt2", "nothing/", "a b/c", "~/x",
     "runs/first--try", "runs/läuft", "runs/x..y", "runs/x."],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_those_there_are(cache, load, name):
    with pytest.raises(InputError, match=f"'{re.escape(name)}': neither a folder, nor owner/name.*gpt2, gpt2-medium"):
        load(name)


@pytest.mark.parametrize("name", HUB)
def test_a_published_name_that_can_not_be_had_says_why_and_what_else_there_is(cache, name):
    why = "not in the cache, and HF_HUB_OFFLINE forbids asking the hub; unset it"
    with pytest.raises(InputError, match=rf"\Amodel '{HUB[name][0]}': {why}; .*--init random.*\Z"):
        load_lm(name)


def put_in_cache(cache, repository, revision, folder) -> None:
    """As huggingface_hub does it where the file system has no links: the files themselves."""
    repo = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(folder, repo / "snapshots" / revision)
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / "main").write_text(revision)


def test_another_revision_of_gpt2_is_not_taken_for_it(cache, lm_reference):
    put_in_cache(cache, HUB["gpt2"][0], "0" * 40, lm_reference.folder)
    with pytest.raises(InputError, match="not in the cache"):
        load_lm("gpt2")


def test_other_weights_are_not_taken_for_gpt2(cache, lm_reference):
    put_in_cache(cache, *HUB["gpt2"], lm_reference.folder)
    with pytest.raises(InputError, match=rf"is not the official one: expected SHA-256 {GPT2_SHA256}, got"):
        load_lm("gpt2")


def test_a_shape_is_read_without_weights(cache, foreign):
    """For a fresh start in a published shape nothing has to be on this machine."""
    assert model.checkpoint.read_config("gpt2-xl") == GPT2Config.preset("gpt2-xl")
    (foreign / WEIGHTS).unlink()
    assert model.checkpoint.read_config(foreign, dropout=0.5).attn_dropout == 0.5
