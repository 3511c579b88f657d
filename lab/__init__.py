"""What experiments share.

a run      cli warned device allocator compiled memory progress runs manifest output defaults state kept
texts      study (a finished run, opened) foreign (a model that others trained, as a run) texts baselines
network    units (what can be taken out) fills (what a closed unit emits) removals (of tokens) sweep (computes) sweeps
           (plans, forecasts and keeps) contributions (to the logits) activations attention (of every head in one text)
           heads (scores of a language model's heads) language optim predict vectors (of whole texts, at every site)
           networks (to compare a run's with)
prompts    label_words (what names a class) prompts demonstrations (examples) prompted (a language model that is asked)
           word_head (of a run that was trained to answer)
numbers    metrics stats effects compared (networks with the whole one) shares (of a class's margin, and verdicts)
showing    figures (heat maps, colours) fonts (letters of many scripts) report (Markdown) page/ (what pages share, and
           views of attention)
pages      guard (who may ask) server (a page and its addresses on this machine)
"""

import os
import sys
from contextlib import suppress

# A notebook names its backend of matplotlib to all that it starts. Where that is missing, matplotlib cannot be
# imported, though our pictures need none: import it without, and then give others who draw here the backend they chose.
if "MPLBACKEND" in os.environ and "matplotlib" not in sys.modules:
    backend = os.environ.pop("MPLBACKEND")
    import matplotlib

    os.environ["MPLBACKEND"] = backend
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = backend
