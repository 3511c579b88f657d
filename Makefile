# Options: make train MODEL=gpt2 CORPUS=path RUN=name SEEDS="0 1 2" ARGS="--epochs 3"
PYTHON ?= python3
BIN := .venv/bin
# ablate.py takes several runs: RUN="a b"
RUNS = $(if $(filter ablate,$@),$(patsubst %,"%",$(RUN)),"$(RUN)")
OPTIONS = $(if $(MODEL),--model "$(MODEL)") $(if $(CORPUS),--corpus "$(CORPUS)") $(if $(RUN),--run $(RUNS)) \
	$(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

.PHONY: help train ablate attend explore explain rate agreement patch probe prompt embed paper mini verify bench bench-quick words lessons test test-slow mutants lint lock
help: ## list these commands; each one sets up what it needs in .venv
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

train: ## fine-tune a classifier and measure it
ablate: ## find what each class needs: heads, layers, pieces of attention
attend: ## see where each head looks: a page of its own, tables and pictures
explore: ## switch heads and words off in a live page: make explore, or MODEL=gpt2
explain: ## find which words decided, and whether the explanation is true
rate: ## let people predict, compare and mark, in a page: do explanations help them?
agreement: ## measure what the raters say, and whether they agree
patch: ## find what carries the difference between two texts
probe: ## find where a class, or a property of words, can be read
prompt: ## ask the language model without a head: prompts and label words
embed: ## see what the vectors know: layers, words, maps, clusters, topics
paper: ## train over several corpora and seeds, and make the table of results
verify: ## check the official weights against recorded facts
train ablate attend explore explain rate agreement patch probe prompt embed paper verify: .venv/ready
	@$(BIN)/python $@.py $(OPTIONS)

mini: .venv/ready ## pretrain a small language model: make mini CORPUS=novels.txt
	@$(BIN)/python pretrain.py $(OPTIONS)

bench: .venv/ready ## measure speed beside transformers and TransformerLens
	@$(BIN)/python -m bench.speed $(ARGS)

bench-quick: .venv/ready ## the same, less exactly, in less time
	@$(BIN)/python -m bench.speed --quick $(ARGS)

# data/words.py and data/properties.py read these from a folder where nltk finds them.
words: .venv/ready ## fetch word lists and a tagged corpus (4 MB), once
	@$(BIN)/python -c 'import sys, nltk; sys.exit(not all(map(nltk.download, sys.argv[1:])))' \
		stopwords opinion_lexicon brown universal_tagset \
		|| { echo "nltk could not fetch them all, for the reason above; is there a network?" >&2; exit 1; }

test: ## run the quick tests
test-slow: ## run the tests marked slow: kills, processes, networks of 124M parameters, trainings
# Of slow tests, files with few come early: begun last, one of them would keep a single processor at work.
test test-slow: .venv/ready
	@$(BIN)/python -m pytest --dist loadfile $(if $(filter test,$@),-n 3 -m "not slow",-n 4 --no-loadscope-reorder -m slow) $(ARGS)

mutants: .venv/ready ## put small faults into the code and see whether the tests notice: hours
	@$(BIN)/python -m bench.mutants $(ARGS)

lint: .venv/ready ## check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

LESSONS := $(wildcard lessons/[0-9]*.py)
lessons: $(LESSONS:.py=.ipynb) ## make the notebooks of the course, and the runs that they open
	@$(BIN)/python train.py --model gpt2-mini --corpus sample --run course --seeds 0 1 --epochs 4 --lm-weight 0
lessons/%.ipynb: | .venv/ready # one that is there may hold answers
	@JUPYTER_DATA_DIR="$(CURDIR)/.venv/share/jupyter" $(BIN)/jupytext --quiet --set-kernel python3 --to ipynb $(@:.ipynb=.py)

# Its last line lets notebooks and scripts of other folders import the project.
.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "headgate needs Python 3.11 or newer")'
	@echo "Setting up .venv: a few minutes, once"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@echo ../../../.. > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/headgate.pth"
	@touch $@

# The build of torch is left to the machine.
lock: ## write requirements.txt anew from pyproject.toml
	$(PYTHON) -m venv .lock
	.lock/bin/pip install --quiet ".[dev]"
	.lock/bin/pip freeze --exclude headgate | sed 's/+cpu$$//' > requirements.txt
	rm -rf .lock build headgate.egg-info
