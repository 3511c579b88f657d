"""What carries the difference between two texts? Read pairs.py and subject.py (which texts, which network), cells.py
(activation patching), estimates.py (all cells at once, to first order), paths.py (single edges), measure.py (all of
them, kept on disk), tables.py (averages over pairs), circuit.py (the strongest edges), classes.py (without pairs),
report.md.jinja and report.py, figures.py and layout.py; published.py (what others measured of the official GPT-2)."""
