"""Which heads, layers, attention regions and words does each class need? Read units.py and plans.py (what is taken
out), findings.py (the tables of effects), importance.py and interactions.py (follow-up questions), report.md.jinja,
report.py and wording.py, figures.py."""
