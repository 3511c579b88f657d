"""Which heads, layers, attention regions and words does each class need? Read units.py (what is taken out), findings.py
(the tables of effects), importance.py and interactions.py (follow-up questions), report.py, figures.py."""
