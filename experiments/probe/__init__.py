"""Where does the network know what? Read sources.py (texts, words and their labels), linear.py (one probe), tasks.py
(all probes), lens.py (what the trained head reads), tables.py, report.md.jinja and report.py, figures.py."""
