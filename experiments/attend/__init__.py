"""Where does each head look? Read weights.py (attention over many texts, one layer at a time), averages.py (means by
class, with limits), patterns.py (previous token, first token, induction ...), words.py (classes of words), choose.py
(which texts are shown), page.py (one page that opens anywhere, also in a notebook), report.md.jinja and report.py,
figures.py."""
