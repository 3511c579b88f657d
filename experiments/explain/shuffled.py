"""The network of a run that was trained on shuffled labels: what it cannot have learnt, no explanation may show."""

import json
from dataclasses import replace

from lab.study import Study, read_run
from lab.word_head import load_network, read_word_head
from model import GPT2Classifier, InputError, Tokenizer
from model.checkpoint import read_config, read_labels


def open_shuffled(name: str, study: Study) -> GPT2Classifier:
    """Return the classifier of a run of `train.py --shuffle-labels`, in eval mode on the study's device, with the names
    of classes that the study has. Raises InputError unless both have the same shape, classes, tokenizer and corpus."""
    where = f"--shuffled-run {name}"
    advice = f"make one with `train.py --shuffle-labels` and the other settings of {study.run}"
    try:
        folder, record = read_run(name)
    except InputError:
        raise InputError(f"{where}: expected the name of a finished run, there is none; {advice}") from None
    if not record["settings"].get("shuffle_labels"):
        raise InputError(f"{where}: expected a run of shuffled labels, got one of true labels; {advice}")
    if study.record["settings"].get("shuffle_labels"):
        raise InputError(f"--run {study.run.name}: its labels were shuffled, too; name the run to explain with --run")
    configs = read_config(folder), study.clf.config
    shape, expected_shape = (replace(config, dropout=0, attn_dropout=0) for config in configs)
    tokenizer = Tokenizer.load(folder)
    head = read_word_head(record, tokenizer)
    files, expected_files = (sorted(each["corpus"]["sha256"].values()) for each in (record, study.record))
    same = {
        "prompt": record.get("prompt") == study.record.get("prompt"),
        "shape": shape == expected_shape,
        "classes": (head.words.labels if head else read_labels(folder)) == study.corpus.labels,
        "tokenizer": tokenizer.vocabulary == study.tokenizer.vocabulary,
        "corpus": files == expected_files,
    }
    if others := [aspect for aspect, equal in same.items() if not equal]:
        raise InputError(f"{where}: expected the {' and '.join(others)} of {study.run}, got another; {advice}")
    clf = load_network(folder, head).to(study.device.device).eval().requires_grad_(False)
    clf.labels = study.clf.labels
    return clf


def describe_shuffled(name: str) -> str:
    """Return the name of a run of shuffled labels, with how many of them its network knows."""
    rows = [json.loads(line) for line in (read_run(name)[0] / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    learnt = [row["accuracy"] for row in rows if row["split"] == "train"][-1]
    return f"{name} (in its last epoch it gave {learnt:.0%} of the texts their label)"
