"""How do training runs compare over corpora, starts and seeds? Read plan.py (which runs), results.py (their scores and
differences), prompts.py (the same networks without a head), report.md.jinja and report.py, figures.py."""
