"""Ask a language model everything that prompt.py wants to know, with one progress bar for each round of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.prompts import Template
from lab.progress import TRAINING_SHARE, console, forecast, progress_bar
from lab.prompted import Prompted
from lab.prompts import Demonstration
from lab.study import Study
from lab.texts import Texts
from model import InputError

from .curve import count_trained_texts
from .demonstrations import check_fit, draw_settings, find_nearest_settings, list_orders
from .scoring import Answers, Setting, draw_contexts, list_answers, list_prompts, score_channel, score_setting
from .tables import tabulate_scores

USUAL_SHOTS = (1, 4)  # of each class
ORDERS = 24  # of one draw


@dataclass(frozen=True, eq=False)
class Asking:
    """What all prompts of a call have in common; `folder` keeps what they say."""

    study: Study  # the run, whose texts are prompts themselves where it was trained on label words
    prompted: Prompted
    folder: Path
    limit: int  # texts of val and of test at most; 0: all
    seed: int
    transductive: bool

    @cached_property
    def bare(self) -> Study:
        """The run with the texts as the corpus has them."""
        return self.study.without_template()

    @cached_property
    def texts(self) -> dict[str, Texts]:
        """The texts that are classified, by split."""
        return {split: self.bare.draw_texts(split, self.limit, self.seed) for split in ("val", "test")}

    @cached_property
    def contexts(self) -> list[str]:
        """Texts of random words of train."""
        return draw_contexts(self.bare.texts["train"], self.seed)

    @property
    def shares(self) -> NDArray[np.float64]:
        """The share of each class in train, float64 (K,)."""
        counts = np.bincount(self.study.texts["train"].targets, minlength=len(self.study.clf.labels))
        return counts / counts.sum()

    def tabulate(self, answers: Sequence[Answers]) -> pd.DataFrame:
        """Return the scores of these answers, see `tabulate_scores`."""
        targets = {split: texts.targets for split, texts in self.texts.items()}
        return tabulate_scores(answers, targets, self.study.clf.labels, self.shares, self.prompted.name)

    def fit_templates(self, templates: Sequence[Template], named: bool) -> list[Template]:
        """Return the templates whose prompts fit into the network's context. Raises InputError where one that the user
        has `named` does not, or none does."""
        fitting: list[Template] = []
        for template in templates:
            try:
                check_fit([Setting(template)], self.texts, self.prompted)
            except InputError as error:
                if named or (template is templates[-1] and not fitting):
                    raise
                console.print(f"Template {template.name} is left out: {error}", soft_wrap=True)
            else:
                fitting.append(template)
        return fitting

    def fit_shots(
        self, wanted: Sequence[int] | None, templates: Sequence[Template], pool: Sequence[Demonstration], draws: int
    ) -> list[int]:
        """Return the numbers of shots whose prompts fit into the network's context, whatever template is chosen.

        Raises InputError where one that is wanted does not fit; of the usual ones those that fit are taken."""
        fitting, words = [], self.prompted.words
        for shots in USUAL_SHOTS if wanted is None else filter(None, wanted):
            try:
                for template in templates:
                    settings = draw_settings(template, pool, shots, draws, words, self.seed)
                    check_fit(settings, self.texts, self.prompted)
            except InputError as error:
                if wanted is not None:
                    raise
                console.print(f"No prompts with {shots} examples of each class: {error}", soft_wrap=True)
            else:
                fitting.append(shots)
        return fitting

    def list_few_shot(
        self, template: Template, pool: Sequence[Demonstration], shots: Sequence[int], draws: int
    ) -> list[Setting]:
        """Return the settings with examples: draws for each number of shots, orders of one draw, the nearest texts."""
        if not shots:
            return []
        words = self.prompted.words
        settings = [each for n in shots for each in draw_settings(template, pool, n, draws, words, self.seed)]
        others = {
            "in other orders": lambda: list_orders(template, pool, words, self.seed),
            "with the nearest examples": lambda: find_nearest_settings(
                template, pool, self.texts, self.prompted, min(shots), self.folder, self.seed
            ),
        }
        for what, make in others.items():
            try:
                check_fit(made := make(), self.texts, self.prompted)
                settings += made
            except InputError as error:
                console.print(f"No prompts {what}: {error}", soft_wrap=True)
        return settings

    def ask(self, settings: Sequence[Setting]) -> list[Answers]:
        """Return the answers of these settings, in their order: of each verbalizer, correction and split."""
        answers: list[Answers] = []
        if not settings:
            return answers
        prompts = sum(len(list_prompts(each, self.texts, self.contexts, self.prompted.words)) for each in settings)
        with progress_bar("prompts") as bar:
            task = bar.add_task("", total=prompts * len(self.prompted.words.beginnings), note="")
            for setting in settings:
                bar.update(task, description=setting.name)

                def advance(n: int) -> None:
                    bar.advance(task, n)

                scored = score_setting(
                    setting, self.texts, self.contexts, self.prompted, self.folder, self.seed, advance
                )
                answers += list_answers(scored, self.prompted.words, self.transductive)
        return answers

    def ask_channel(self, setting: Setting) -> list[Answers]:
        """Return the answers of the noisy channel, which has no prior to take out; none where the template has none."""
        if not setting.template.channel:
            return []
        words, answers = self.prompted.words, []
        with progress_bar("texts x classes") as bar:
            total = sum(map(len, self.texts.values())) * len(words.labels)
            task = bar.add_task(f"noisy channel, {setting.name}", total=total, note="")

            def advance(n: int) -> None:
                bar.advance(task, n)

            for split, texts in self.texts.items():
                log_probs = score_channel(setting, texts, self.prompted, self.folder, self.seed, advance)
                answered: dict[str, Any] = {"correction": "channel", "split": split, "log_probs": log_probs}
                no_prior = np.zeros(len(words.labels))
                answers.append(Answers(**setting.describe(words), verbalizer="first word", b=no_prior, **answered))
        return answers

    def forecast(
        self, templates: Sequence[Template], shots: Sequence[int], draws: int, pool: Sequence[Demonstration]
    ) -> str:
        """Say how long prompts and learning curve take: multiply-adds, at a share of the product rate."""
        config, K = self.prompted.lm.config, len(self.prompted.words.labels)
        count = self.prompted.tokenizer.encode
        n, texts = sum(map(len, self.texts.values())), [text for each in self.texts.values() for text in each.strings]
        length = float(np.mean([len(count(text)) for text in texts]))
        prompt = length + float(np.mean([len(count(template.fill(""))) for template in templates]))
        rounds = len(templates) + (len(shots) * draws + ORDERS if shots else 0)
        nearest = 2 * n * (1 + K * min(shots)) if shots else 0  # texts in prompts that share no beginning
        tokens = (rounds * n + nearest) * prompt + (K * n + len(pool)) * length + count_trained_texts(pool, K) * length
        vocabulary = (rounds * n + K * n * length) * config.vocab_size * config.n_embd
        rate = TRAINING_SHARE * self.prompted.device.product_rate()
        what = f"{rounds * n:,} prompts, and what as many examples give without one, take"
        return forecast(what, tokens * config.block_weights + vocabulary, rate, self.prompted.device)
