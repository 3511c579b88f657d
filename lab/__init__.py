"""What experiments share.

a run      cli warned device compiled memory progress runs manifest output defaults state kept
texts      study (a finished run, opened) texts baselines
network    units (what can be taken out) fills (what a closed unit emits) removals (of tokens) sweep (computes) sweeps
           (plans, forecasts and keeps) contributions (to the logits) activations attention (of every head in one text)
           heads (scores of a language model's heads) language optim predict vectors (of whole texts, at every site)
           networks (to compare a run's with)
prompts    label_words (what names a class) prompts demonstrations (examples) prompted (a language model that is asked)
           word_head (of a run that was trained to answer)
numbers    metrics stats effects compared (networks with the whole one) shares (of a class's margin, and verdicts)
showing    figures (heat maps, colours) report (Markdown) page/ (what pages share, and views of attention)
pages      guard (who may ask) server (a page and its addresses on this machine)
"""

import os
from importlib.util import find_spec

# A notebook sets this for all that it starts. Elsewhere that module may be missing, and matplotlib cannot be imported.
backend = os.environ.get("MPLBACKEND", "")
if backend.startswith("module://") and find_spec(backend.removeprefix("module://").split(".")[0]) is None:
    del os.environ["MPLBACKEND"]
