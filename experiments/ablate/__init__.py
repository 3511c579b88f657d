"""Which heads, layers, attention regions and words does each class need? Read plans.py (what is taken out),
findings.py (the tables of effects), verdicts.py (what matters, and more than random parts do), seeds.py (what repeats),
importance.py and interactions.py (follow-up questions), hard_concrete.py, learnt.py and learnt_sets.py (which heads an
optimiser keeps), report.md.jinja, report.py and wording.py, figures.py."""
