"""How fast is headgate beside `transformers` and TransformerLens, does regularising attention help, and do its tests
notice faults?

Each starts from the project's folder: `python -m bench.speed` (`make bench`), `bench.loading`, `bench.pretraining`,
`bench.corpora`, `bench.regularisers` and `bench.mutants` (`make mutants`); `bench/gpu.sh` does what fits into 8 minutes
on a GPU. Read speed.py, slices.py (which texts are timed), contestants.py, frozen.py, prompts.py and recording.py (who
is timed), turns.py (how), arithmetic.py (what there is to compute), table.py, precision.py and scaling.py (what is
reported); gpu.py and gpu_steps.py; loading.py; pretraining.py; corpora.py (how all grows with the number of texts);
regularisers.py (what is trained) and gains.py (what that gains); then mutants.py, points.py (which faults there are)
and forked_tests.py (how tests run on them)."""
