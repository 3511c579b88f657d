"""A prompt in the place of a run's classifier: the language model that answers it is ablated instead."""

from typing import Literal

from data.prompts import read_templates
from lab.demonstrations import draw_demonstrations, make_pool
from lab.prompted import DOMAIN, PromptStudy, make_prompt_study, open_prompted
from lab.study import Study
from model import InputError

Correction = Literal["direct", "batch", "domain_pmi"]
NEUTRAL: dict[Correction | None, str | None] = {None: None, "direct": None, "batch": "val", "domain_pmi": DOMAIN}
MEANING: dict[Correction | None, str] = {
    "direct": "Its label prior is left in",
    "batch": "Its label prior, the mean over the prompts of val, is taken out, anew under each ablation",
    "domain_pmi": "Its label prior, what it says of the prompt without a text, is taken out, anew under each ablation",
}


def ask(study: Study, name: str, shots: int, seed: int) -> PromptStudy:
    """Return the study of a prompt: a template, by its name or file, behind the first draw of examples.

    Raises InputError where there are several templates, where the run began with random weights, which know no words,
    and where a prompt does not fit into the context."""
    if study.record["settings"]["init"] == "random" and study.record["settings"].get("head") != "words":
        raise InputError(f"--prompt: {study.run} began with random weights, which cannot be asked; name another --run")
    templates = read_templates([name])
    if len(templates) > 1:
        raise InputError(f"--prompt {name}: expected one template, got {', '.join(each.name for each in templates)}")
    prompted, bare = open_prompted(study, model=None, words=()), study.without_template()
    demonstrations = draw_demonstrations(make_pool(bare), shots, 0, prompted.words, seed) if shots else ()
    return make_prompt_study(bare, prompted, templates[0], demonstrations, seed)


def name_logits(study: Study) -> str:
    """Return the name of the folder that keeps a study's logits. Each template and number of shots has its own, so that
    going back to one costs no new sweep."""
    if not isinstance(study, PromptStudy):
        return "logits"
    return f"logits-{study.template.name}-{len(study.demonstrations) // len(study.clf.labels)}"


def describe_prompt(study: Study, correction: Correction | None) -> str:
    """Return what is ablated, where it is a prompt; else nothing."""
    return f"{study.describe()}. {MEANING[correction]}" if isinstance(study, PromptStudy) else ""
