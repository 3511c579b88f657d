"""Do explanations help people? Read items.py (the texts, and what is shown of them), protocol.py (the order in which a
rater sees them), answers.py (a line on disk for each answer), server.py (the addresses) and page/ (what a rater sees),
simulate.py (raters of known accuracy), then measures.py (agreement, accuracy, power), tables.py (agreement.csv),
report.md.jinja and report.py, figures.py."""
