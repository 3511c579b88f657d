"""What a training starts from: texts and a network, and where it shall answer in label words, these and a template."""

from collections.abc import Sequence

from torch import nn

from data import Corpus
from lab.defaults import TrainOptions
from lab.study import match_labels
from lab.texts import Texts, check_pair, read_texts
from lab.word_head import WordHead, choose_word_head
from model import GPT2LM, GPT2Classifier, GPT2Config, InputError, Tokenizer, load_classifier, load_lm
from model.checkpoint import read_config
from model.names import find

from .regularisers import set_attention_dropout
from .words import read_words_and_rest


def choose_head(options: TrainOptions, labels: Sequence[str]) -> WordHead | None:
    """Return the template and the label words to train on; None where a classifier is trained."""
    if options.head == "classifier":
        return None
    return choose_word_head(options.template, options.words, labels, Tokenizer.load(options.model))


def read_inputs(
    corpus: Corpus, tokenizer: Tokenizer, config: GPT2Config, truncate: bool, head: WordHead | None
) -> dict[str, Texts]:
    """Return train, val and test as the network reads them: in the template, where there is one.

    Raises InputError where it cannot read them, see `read_texts` and `WordHead.check`."""
    if not head:
        return read_texts(corpus, tokenizer, config, truncate)
    check_pair(tokenizer, config)
    try:
        texts = read_texts(corpus, tokenizer, config, truncate, head.template)
    except InputError as error:  # the user wrote fewer tokens than it counts
        raise InputError(f"{error} (tokens count together with the template, {head.template.name})") from None
    head.check(texts, tokenizer)
    return texts


def start_model(options: TrainOptions, corpus: Corpus, head: WordHead | None) -> GPT2Classifier:
    """Load or make the classifier, or the language model with its label words; only the parts that `tune` names are
    trainable."""
    is_random = options.init == "random"
    config = read_config(options.model, options.dropout)
    if head:
        lm = GPT2LM(config) if is_random else load_lm(options.model, options.dropout)
        model = read_words_and_rest(lm, head.words)
    elif is_random:
        model = GPT2Classifier(config, corpus.labels)
    else:
        names = match_labels(find(options.model), options.labels, corpus, can_rename=True)
        model = load_classifier(options.model, corpus.labels, options.dropout, names=names)
    if options.attention_dropout is not None:
        set_attention_dropout(model, options.attention_dropout)
    if options.tune == "all":
        return model
    parts: list[nn.Module] = [] if head else [model.score]
    if blocks := options.tuned_blocks(model.config.n_layer):
        parts += [*model.trunk.h[-blocks:], model.trunk.ln_f]
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
    return model
