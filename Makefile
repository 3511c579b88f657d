# Every target sets up what it needs in .venv. Options: make train MODEL=gpt2 CORPUS=path RUN=name ARGS="--epochs 3"
PYTHON ?= python3
BIN := .venv/bin
OPTIONS = $(if $(MODEL),--model "$(MODEL)") $(if $(CORPUS),--corpus "$(CORPUS)") $(if $(RUN),--run "$(RUN)") $(ARGS)

.PHONY: train mini verify paper ablate probe bench bench-quick mutants words test test-slow lint lock
train verify paper ablate probe: .venv/ready
	@$(BIN)/python $@.py $(OPTIONS)

bench: .venv/ready
	@$(BIN)/python bench/speed.py $(ARGS)

bench-quick: .venv/ready
	@$(BIN)/python bench/speed.py --quick $(ARGS)

# Whether the tests notice small faults in lab/, data/ and experiments/: some hours.
mutants: .venv/ready
	@$(BIN)/python bench/mutants.py $(ARGS)

mini: .venv/ready
	@$(BIN)/python pretrain.py $(OPTIONS)

# What data/words.py and data/properties.py read of nltk, into a folder where nltk finds it: once, some 4 MB.
words: .venv/ready
	@$(BIN)/python -c 'import sys, nltk; sys.exit(not all(map(nltk.download, sys.argv[1:])))' \
		stopwords opinion_lexicon brown universal_tagset \
		|| { echo "nltk could not fetch them all, for the reason above; is there a network?" >&2; exit 1; }

# What takes long has the marker slow: kills, processes, networks of 124M parameters, trainings.
test test-slow: .venv/ready
	@$(BIN)/python -m pytest -n 3 --dist loadfile -m "$(if $(filter test,$@),not )slow" $(ARGS)

lint: .venv/ready
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "headgate needs Python 3.11 or newer")'
	@echo "Setting up .venv: a few minutes, once"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

# requirements.txt is made from pyproject.toml; the build of torch is left to the machine.
lock:
	$(PYTHON) -m venv .lock
	.lock/bin/pip install --quiet ".[dev]"
	.lock/bin/pip freeze --exclude headgate | sed 's/+cpu$$//' > requirements.txt
	rm -rf .lock build headgate.egg-info
