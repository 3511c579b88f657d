"""Which words decided, and is the explanation true? Read attributions.py (what each token adds to a class, by formulas
that take any network), methods.py (all of them on one text), choose.py (which texts), rationales.py, judge.py and
faithfulness.py (does the prediction fall with the tokens that are called important?), sanity.py and shuffled.py (does
the explanation change with the network?), words.py and robustness.py (important words of a corpus, and what happens
without them), tables.py, page.py (texts.html), report.md.jinja and report.py, figures.py."""
