"""How fast is headgate beside `transformers` and TransformerLens, does regularising attention help, and do its tests
notice faults?

Each starts from the project's folder: `python -m bench.speed` (`make bench`), `bench.loading`, `bench.pretraining`,
`bench.corpora`, `bench.regularisers` and `bench.mutants` (`make mutants`). Read speed.py, slices.py (which texts are
timed), contestants.py, frozen.py and prompts.py (who is timed), turns.py (how), table.py and scaling.py (what is
reported); loading.py; pretraining.py; corpora.py (how all grows with the number of texts); regularisers.py (what is
trained) and gains.py (what that gains); then mutants.py, points.py (which faults there are) and forked_tests.py (how
tests run on them)."""
