"""Folders that other programs leave: each row of the table in docs/models.md, read as in `transformers`, or refused."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from commands import line_of
from safetensors.torch import load_file, save_file
from tiny import C, K, V, difference, set_config, texts

from model import load_classifier, load_lm
from model.checkpoint import read_config
from model.names import INDEX, WEIGHTS

ROOT = Path(__file__).parents[2]
IDS = texts(11, 11)[0]
NAMES = ["sadness", "joy", "love", "anger"]
BLOCK = "transformer.h.1.attn.c_attn"


def rewrite(folder, change):
    """Save the folder's tensors again as `change` returns them."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


def renamed(rename):
    """Give each tensor the name that `rename` makes of its own."""
    return lambda folder: rewrite(folder, lambda tensors: {rename(key): tensor for key, tensor in tensors.items()})


def added(**more):
    """Add tensors; a name's dots are written __."""
    named = {name.replace("__", "."): tensor for name, tensor in more.items()}
    return lambda folder: rewrite(folder, lambda tensors: tensors | named)


def cast(dtype):
    return lambda folder: rewrite(folder, lambda tensors: {key: tensor.to(dtype) for key, tensor in tensors.items()})


def reshaped(change, *ends):
    """Change the tensors whose names end so."""

    def work(tensors):
        return {key: change(tensor).contiguous() if key.endswith(ends) else tensor for key, tensor in tensors.items()}

    return lambda folder: rewrite(folder, work)


def config(**settings):
    return lambda folder: set_config(folder, **settings)


def without(*settings):
    def change(folder):
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({key: raw[key] for key in raw if key not in settings}))

    return change


def replaced(*names):
    """Put files of these names in the place of the weights."""

    def change(folder):
        (folder / WEIGHTS).unlink()
        for name in names:
            (folder / name).write_bytes(b"content")

    return change


def sharded(*changes):
    """Save the weights in shards, with `transformers`; `changes` work on the folder afterwards."""

    def change(folder):
        from transformers import GPT2LMHeadModel

        model = GPT2LMHeadModel.from_pretrained(folder)
        (folder / WEIGHTS).unlink()
        model.save_pretrained(folder, max_shard_size="60KB")
        assert len([*folder.glob("model-*")]) > 2
        for work in changes:
            work(folder)

    return change


def first_shard(folder):
    return next(iter(sorted(folder.glob("model-*"))))


def remove_first_shard(folder):
    first_shard(folder).unlink()


def name_in_index(name):
    def change(folder):
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"]["transformer.wpe.weight"] = name
        (folder / INDEX).write_text(json.dumps(index))

    return change


def promise(folder):
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["transformer.h.1.more"] = first_shard(folder).name
    (folder / INDEX).write_text(json.dumps(index))


def repeat_in_another_shard(folder):
    *_, last = sorted(folder.glob("model-*"))
    save_file(load_file(last) | load_file(first_shard(folder)), last, {"format": "pt"})


def leave_shards_beside(folder):
    """Shards of other weights, and their index."""
    one = load_file(folder / WEIGHTS)
    sharded()(folder)
    shard = first_shard(folder)
    save_file({key: tensor + 1 for key, tensor in load_file(shard).items()}, shard, {"format": "pt"})
    save_file(one, folder / WEIGHTS, {"format": "pt"})


def tie(factor):
    return lambda folder: rewrite(
        folder, lambda tensors: tensors | {"lm_head.weight": tensors["transformer.wte.weight"] * factor}
    )


def copy_embeddings(key):
    return lambda folder: rewrite(folder, lambda tensors: tensors | {key: tensors["transformer.wte.weight"].clone()})


def masks(folder):
    layers = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 13, 13, dtype=torch.bool).tril() for i in range(3)}
    numbers = {f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(3)}
    rewrite(folder, lambda tensors: tensors | layers | numbers)


def neo_masks(folder):
    layers = {f"transformer.h.{i}.attn.attention.bias": torch.ones(1, 1, 17, 17, dtype=torch.bool) for i in range(3)}
    numbers = {f"transformer.h.{i}.attn.attention.masked_bias": torch.tensor(-1e9) for i in range(3)}
    rewrite(folder, lambda tensors: tensors | layers | numbers)


def grow(folder):
    """Append rows to wte, as resize_token_embeddings does."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(V + 3)
    model.save_pretrained(folder)


def cut(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])


def adapt(folder):
    (folder / "adapter_config.json").write_text("{}")


def lone_adapter(folder):
    (folder / "config.json").unlink()
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    adapt(folder)


def put_in(key):
    """Name a tensor as if the parts of a model had been wrapped one by one."""
    return key.replace("transformer.", "transformer._orig_mod.").replace(".attn.", "._orig_mod.attn.module.")


ORDER = {"2": "love", "0": "sadness", "3": "anger", "1": "joy"}
NUMBERS = {name: int(number) for number, name in ORDER.items()}
LM, CLF, NEO_LM, NEO_CLF = "lm", "clf", "neo_lm", "neo_clf"

# What the folder holds -> (whose folder it was, what was done to it, does transformers read it).
READ = {
    "what `transformers` saves of `GPT2LMHeadModel` or `GPT2ForSequenceClassification`": [
        (LM, config(), True), (CLF, config(), True),
        (LM, config(dtype=None, torch_dtype="float16", use_cache=False), True),
    ],
    "the same of `GPTNeoForCausalLM` or `GPTNeoForSequenceClassification`": [
        (NEO_LM, config(), True), (NEO_CLF, config(), True), (NEO_LM, neo_masks, True),
    ],
    "`GPT2Model` alone, without a head": [(LM, renamed(lambda key: key.removeprefix("transformer.")), True)],
    f"shards and `{INDEX}`": [(LM, sharded(), True)],
    f"`{WEIGHTS}` beside shards": [(LM, leave_shards_beside, True)],
    "names that begin with `_orig_mod.`, `module.` or `base_model.model.`, also mixed": [
        (LM, renamed("_orig_mod.{}".format), False), (CLF, renamed("_orig_mod.{}".format), False),
        (LM, renamed("module._orig_mod.{}".format), False), (CLF, renamed("base_model.model.{}".format), False),
        (LM, renamed("model.module.module.{}".format), False), (CLF, renamed(put_in), False),
    ],
    "weights in fp16, bf16 or fp64": [(LM, cast(torch.float16), True), (CLF, cast(torch.bfloat16), True),
                                      (LM, cast(torch.float64), True)],
    "`attn.bias` and `attn.masked_bias`, the masks of old versions": [(LM, masks, True), (CLF, masks, True)],
    "an `lm_head.weight` equal to `wte.weight`": [(LM, tie(1), True)],
    "a vocabulary with more rows than the tokenizer needs": [(LM, grow, True)],
    "no `model_type`, but a GPT-2 or GPT-Neo under `architectures`": [
        (LM, without("model_type"), True), (NEO_LM, without("model_type"), True),
    ],
    "`scale_attn_weights` false": [(LM, config(scale_attn_weights=False), True)],
    "`n_inner` null or 4 times `n_embd`": [(LM, config(n_inner=4 * C), True), (LM, config(n_inner=None), True)],
    "GELU's tanh form under another name, e.g. `gelu_fast`": [
        (LM, config(activation_function=name), True)
        for name in ("gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh")
    ],
    "a classifier without `id2label`": [(CLF, without("id2label", "label2id"), False),
                                        (CLF, lambda folder: (without("id2label", "label2id")(folder),
                                                              set_config(folder, num_labels=K)), True)],
    "`id2label` with its numbers in any order": [(CLF, config(id2label=ORDER, label2id=NUMBERS), True)],
    "`label2id` with other names than `id2label`": [(CLF, config(id2label=ORDER), True)],
}  # fmt: skip

MERGE = "merge_and_unload"
# What the folder holds -> (whose folder it was, what was done to it, a part of what is said).
REFUSED = {
    "a shard too few, or an index that does not fit its shards": [
        (LM, sharded(remove_first_shard), r"index.json names model-00001-of-0000\d.safetensors, and there is no such"),
        (LM, sharded(name_in_index("../x.safetensors")), "wpe.weight: expected a safetensors file in the same folder"),
        (LM, sharded(name_in_index("/x.safetensors")), "got '/x.safetensors'"),
        (LM, sharded(name_in_index("x.bin")), "got 'x.bin'"), (LM, sharded(name_in_index(3)), "got 3"),
        (LM, sharded(promise), "promises what is not there: transformer.h.1.more in model-00001"),
        (LM, sharded(lambda folder: (folder / INDEX).write_text("{}")), "expected a weight_map"),
        (LM, sharded(lambda folder: (folder / INDEX).unlink()), f"; shards need {INDEX}"),
    ],
    "one tensor twice: in two shards, or under two names": [
        (LM, sharded(repeat_in_another_shard), "are the same tensor; remove one of them"),
        (CLF, copy_embeddings("_orig_mod.transformer.wte.weight"), "_orig_mod.transformer.wte.weight in model.safe"),
        (LM, copy_embeddings("wte.weight"), "are the same tensor; remove one of them"),
    ],
    "an `lm_head.weight` unlike `wte.weight`": [
        (LM, tie(2), "lm_head.weight differs from wte.weight"),
        (LM, config(tie_word_embeddings=False), "does not implement tie_word_embeddings = False"),
    ],
    "the head of another task: tokens, answers, choices, rewards": [
        (LM, added(classifier__weight=torch.ones(K, C)), "classifier.weight is the head of a model that classifies to"),
        (CLF, added(qa_outputs__bias=torch.ones(2)), "qa_outputs.bias is the head of a model that marks answers"),
        (LM, added(multiple_choice_head__summary__weight=torch.ones(1, C)), "a model that chooses between texts"),
        (LM, added(v_head__summary__bias=torch.ones(1)), "v_head.summary.bias is the head of a model that estimates"),
    ],
    "a classifier with a bias": [(CLF, added(score__bias=torch.ones(K)), "score.bias is the bias of a classification")],
    "a regression, or several labels for one text": [
        (CLF, reshaped(lambda score: score[:1], "score.weight"), "score.weight has one row, for a regression"),
        (CLF, config(problem_type="regression"), "does not implement problem_type = 'regression'"),
        (CLF, config(problem_type="multi_label_classification"), "does not implement problem_type = 'multi_label"),
    ],
    "`id2label` with too few names, or against `label2id`": [
        (CLF, config(id2label={"0": "LABEL_0", "1": "LABEL_1"}), "expected a name of its own for each of 4 classes"),
        (CLF, config(id2label=ORDER, label2id={**NUMBERS, "joy": 2, "love": 1}), "contradict each other; correct one"),
    ],
    "an adapter (LoRA), alone or beside a model": [
        (LM, lone_adapter, MERGE), (LM, adapt, f"{MERGE}.*where this is done, remove adapter_config.json"),
    ],
    "a model with an adapter not merged into it": [
        (LM, added(**{f"{BLOCK}.lora_A.default.weight": torch.ones(1)}), f"lora_A.default.weight belongs.*{MERGE}"),
        (LM, renamed(lambda key: key.replace("c_fc.", "c_fc.base_layer.")), f"c_fc.base_layer.bias belongs.*{MERGE}"),
        (CLF, renamed(lambda key: key.replace("score.", "score.modules_to_save.default.")), f"belongs.*{MERGE}"),
    ],
    "quantised weights (GPTQ, bitsandbytes, fp8, int8)": [
        (LM, added(**{f"{BLOCK}.qweight": torch.ones(3, dtype=torch.int32)}), "qweight is of quantised weights"),
        (LM, added(**{f"{BLOCK}.weight.absmax": torch.ones(3)}), "absmax is of quantised weights"),
        (LM, reshaped(lambda weight: weight.to(torch.int8), "c_fc.weight"), "got torch.int8; save a quantised model"),
        (LM, cast(torch.float8_e4m3fn), "got torch.float8_e4m3fn; save a quantised model in"),
    ],
    "a pickle: `pytorch_model.bin`, `.pt`, `.pth` or `.ckpt`": [
        (LM, replaced(*names), "a pickle is never opened here")
        for names in (["pytorch_model.bin"], ["pytorch_model-00001-of-00002.bin", "tf_model.h5"], ["ckpt.pt"])
    ],
    "weights of TensorFlow, Flax, GGUF or ONNX": [
        (LM, replaced("tf_model.h5"), "from_tf=True"), (LM, replaced("flax_model.msgpack"), "from_flax=True"),
        (LM, replaced("gpt2.Q8_0.gguf"), "gguf_file="), (LM, replaced("model.onnx"), "ONNX file is not read"),
    ],
    "safetensors under another name": [(LM, replaced("model.fp16.safetensors"), f"the whole model, call it {WEIGHTS}")],
    "no weights": [
        (LM, replaced(), f"expected {WEIGHTS}, there are config.json, generation_config.json, no weights; tr"),
        (LM, replaced("training_args.bin", "optimizer.pt"), "training_args.bin, no weights; train.py --init random"),
    ],
    "no `config.json`": [(LM, lambda folder: (folder / "config.json").unlink(), "expected config.json, there are")],
    "a file cut short, or numbers that are not finite": [
        (LM, cut, "is truncated or damaged"),
        (LM, reshaped(lambda bias: bias / 0, "ln_f.bias"), "ln_f.bias holds numbers that are not finite"),
    ],
    "another architecture (GPT-NeoX is one), activation or attention": [
        (LM, config(model_type="gpt_neox"), "does not implement model_type = 'gpt_neox'"),
        (NEO_LM, config(attention_layers=["global", "strided", "local"]), "attention_layers: expected \"global\" or"),
        (LM, config(activation_function="gelu"), "does not implement activation_function = 'gelu'"),
        (LM, config(add_cross_attention=True), "does not implement add_cross_attention = True"),
        (LM, config(scale_attn_by_inverse_layer_idx=True), "does not implement scale_attn_by_inverse_layer_idx"),
        (LM, added(transformer__h__0__ln_cross_attn__bias=torch.ones(C)), "ln_cross_attn.bias belongs to cross-att"),
    ],
    "other names or shapes, e.g. with heads pruned, or of nanoGPT": [
        (LM, reshaped(lambda weight: weight[:, :98], "h.1.attn.c_attn.weight"), r"\(35, 105\) got \(35, 98\)$"),
        (LM, reshaped(torch.t, "c_attn.weight", "c_fc.weight"), r"c_attn.weight expected \(35, 105\) got \(105, 35"),
        (LM, renamed(lambda key: key.replace("wte", "token_embedding")), "missing: wte.weight; unexpected: tra"),
    ],
}  # fmt: skip


def all_of(table):
    return [pytest.param(*case, id=f"{row}-{i}") for row, cases in table.items() for i, case in enumerate(cases)]


@pytest.fixture
def foreign(request, tmp_path):
    """Copy the folder of a language model or a classifier of `transformers`, and change it."""

    def make(kind, change):
        folder = shutil.copytree(request.getfixturevalue(f"{kind}_reference").folder, tmp_path / "foreign")
        change(folder)
        return folder

    return make


def load_any(kind, folder):
    return (load_lm if kind in (LM, NEO_LM) else load_classifier)(folder)


def opened(kind, folder):
    """What `transformers` makes of the folder, in fp32, and the names of weights that it did not find there."""
    import transformers

    kinds = {LM: "GPT2LMHeadModel", CLF: "GPT2ForSequenceClassification"}
    kinds |= {NEO_LM: "GPTNeoForCausalLM", NEO_CLF: "GPTNeoForSequenceClassification"}
    theirs, report = getattr(transformers, kinds[kind]).from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    return theirs.eval(), report["missing_keys"]


@torch.no_grad()
@pytest.mark.parametrize(("kind", "change", "transformers_reads_it"), all_of(READ))
def test_a_folder_of_the_table_is_read_as_transformers_does(request, foreign, kind, change, transformers_reads_it):
    folder = foreign(kind, change)
    ours = load_any(kind, folder)
    theirs = request.getfixturevalue(f"{kind}_reference").hf
    if transformers_reads_it:
        theirs, missing = opened(kind, folder)
        assert not missing
    assert difference(ours(IDS), theirs(IDS).logits) < 1e-5


@pytest.mark.parametrize(("kind", "change", "said"), all_of(REFUSED))
def test_a_folder_of_the_table_is_refused_with_the_reason(foreign, kind, change, said):
    folder = foreign(kind, change)
    line = line_of(load_any, kind, folder)
    assert line.startswith(str(folder))
    assert re.search(said, line)
    assert ("--" in line) is ("no weights" in line)  # to advise random ones would throw away those that there are


def test_the_table_of_the_page_has_these_rows():
    section = (ROOT / "docs" / "models.md").read_text().partition("## Checkpoints")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in re.findall(r"^\|.*\|$", section, re.M)]
    assert cells[0] == ["what the folder holds", "what headgate does"]
    assert [row for row, does in cells[2:] if does.startswith("reads")] == [*READ]
    assert [row for row, does in cells[2:] if does.startswith("refuses")] == [*REFUSED]
    assert len(cells) == 2 + len(READ) + len(REFUSED)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model."])
def test_transformers_finds_nothing_under_the_prefixes_of_wrappers(foreign, prefix):
    """As the table says."""
    theirs, missing = opened(LM, foreign(LM, renamed(f"{prefix}{{}}".format)))
    assert missing >= {name for name, _ in theirs.named_parameters()}


def test_the_shape_of_an_adapter_is_refused_with_the_same_reason(foreign):
    assert MERGE in line_of(read_config, foreign(LM, lone_adapter))


# A classifier's classes.


@torch.no_grad()
@pytest.mark.parametrize("labels", [NAMES, NAMES[::-1], ["love", "sadness", "anger", "joy"]], ids=str)
def test_classes_come_in_the_order_that_was_asked_for(foreign, labels):
    folder = foreign(CLF, config(id2label=ORDER, label2id=NUMBERS))
    theirs, _ = opened(CLF, folder)
    ours = load_classifier(folder, labels)
    assert ours.labels == tuple(labels)
    assert difference(ours(IDS), theirs(IDS).logits[:, [NUMBERS[label] for label in labels]]) < 1e-5


@torch.no_grad()
def test_classes_without_names_are_given_them(clf_reference):
    """The names are those of the rows, in their order; the labels may come in another."""
    named = load_classifier(clf_reference.folder, names=NAMES)
    assert named.labels == tuple(NAMES)
    turned = load_classifier(clf_reference.folder, NAMES[::-1], names=NAMES)
    assert turned.labels == tuple(NAMES[::-1])
    logits = clf_reference.hf(IDS).logits
    assert difference(named(IDS), logits) < 1e-5
    assert difference(turned(IDS), logits.flip(1)) < 1e-5


def test_names_go_before_those_of_a_config_that_has_too_few(foreign):
    folder = foreign(CLF, config(id2label={"0": "LABEL_0", "1": "LABEL_1"}))
    assert load_classifier(folder, names=NAMES).labels == tuple(NAMES)


def test_other_classes_are_refused_with_both_lists_and_the_way_out(clf_reference):
    line = line_of(load_classifier, clf_reference.folder, NAMES)
    said = "its classes are LABEL_0, LABEL_1, LABEL_2, LABEL_3; expected sadness, joy, love, anger"
    assert f"{said}: labels must name its classes, and names may say what these are" in line
    assert "--" not in line


@pytest.mark.parametrize("names", [NAMES[:3], [*NAMES, "fear"], ["joy"] * 4, ["a", "b", "c", ""], "abcd"], ids=str)
def test_names_that_do_not_fit_the_rows_are_refused(clf_reference, names):
    line = line_of(lambda folder: load_classifier(folder, names=names), clf_reference.folder)
    assert f"names: expected one of its own for each of 4 classes, got {names!r}" in line


def test_names_for_a_checkpoint_without_a_head_are_refused(lm_reference):
    line = line_of(lambda folder: load_classifier(folder, NAMES, names=NAMES), lm_reference.folder)
    assert "no classification head, so there are no rows to give names" in line


def test_what_wrappers_left_does_not_hide_the_head_from_a_language_model(foreign, clf_reference):
    ours = load_lm(foreign(CLF, renamed("_orig_mod.{}".format)))
    assert torch.equal(ours.trunk(IDS), clf_reference.ours.trunk(IDS))
