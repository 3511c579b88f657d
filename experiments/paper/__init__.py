"""How do training runs compare over corpora, models, starts and seeds? Read plan.py (which runs) and names.py,
results.py (their scores), differences.py, prompts.py (the same networks without a head), report.md.jinja with report.py
and comparison.py, figures.py."""
