# The front door. Words in lower case are the experiment's (detector.latent_dim=64), words in capitals are make's.

EXP ?=
DATA ?=
RUN ?=
STUDY ?=
INPUT ?=
PEER ?=
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
  $$name -c $(new_enough) 2>/dev/null && echo $$name && break; done)
new_enough := 'import sys; sys.exit(sys.version_info < (3, 11))'

VENV := .venv
STAMP := $(VENV)/.complete
RUNNER := $(VENV)/bin/python
IMAGE := anomaly-lab
# One worker a core and one thread a worker: small tensors gain nothing from a second thread.
TESTS = OMP_NUM_THREADS=1 $(RUNNER) -m pytest -q --numprocesses=auto --dist=worksteal

# Every lower-case key=value typed after make, quoted for the shell, untouched by make and shell alike.
quote = '$(subst ','\'',$(1))'
capital := A% B% C% D% E% F% G% H% I% J% K% L% M% N% O% P% Q% R% S% T% U% V% W% X% Y% Z%
typed = $(if $(filter command,$(origin $(1))),$(call quote,$(1)=$(value $(1))))
OVERRIDES = $(foreach key,$(sort $(filter-out $(capital) -% .%,$(.VARIABLES))),$(call typed,$(key)))

need_exp = @test -n $(call quote,$(EXP)) || { echo "which experiment? make $@ EXP=…; 'make list' shows all" >&2; exit 2; }
need_data = @test -n $(call quote,$(DATA)$(EXP)) || { echo "which data set? make $@ DATA=…; 'make list' shows all" >&2; exit 2; }
need_run = @test -n $(call quote,$(RUN)) || { echo "which run? make $@ RUN=runs/…" >&2; exit 2; }

.DEFAULT_GOAL := help
.PHONY: help setup list show data train resume evaluate predict report study test test-slow check format bench docs docker clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# Rebuilt from nothing when it was left half-built, brought up to date when the pins changed.
$(STAMP): requirements.lock pyproject.toml
	@"$(PYTHON)" -c $(new_enough) 2>/dev/null || \
	  { echo "Python 3.11 or newer is needed: install it or say make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -e $(STAMP) || rm -rf $(VENV)
	@echo "setting up $(VENV): once, a few minutes"
	@"$(PYTHON)" -m venv $(VENV)
	@$(RUNNER) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(RUNNER) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

setup: $(STAMP)  ## build .venv from requirements.lock (every other target does it when needed)

list: $(STAMP)  ## every detector and data set, and what is tuned
	@$(RUNNER) -m anomaly_lab list

show: $(STAMP)  ## a whole experiment with all defaults: make show EXP=fanogan_headct
	$(need_exp)
	@$(RUNNER) -m anomaly_lab show $(call quote,$(EXP)) $(OVERRIDES)

data: $(STAMP)  ## build or reuse the store, write a data sheet: make data DATA=headct data.root=…
	$(need_data)
	@$(RUNNER) -m anomaly_lab data $(call quote,$(or $(EXP),$(DATA))) $(OVERRIDES)

train: $(STAMP)  ## train, judge, report: make train EXP=fanogan_headct detector.latent_dim=64
	$(need_exp)
	@$(RUNNER) -m anomaly_lab train $(call quote,$(EXP)) $(OVERRIDES)

resume: $(STAMP)  ## continue a stopped run: make resume RUN=runs/…
	$(need_run)
	@$(RUNNER) -m anomaly_lab resume $(call quote,$(RUN))

evaluate: $(STAMP)  ## judge a run again: make evaluate RUN=runs/…
	$(need_run)
	@$(RUNNER) -m anomaly_lab evaluate $(call quote,$(RUN))

predict: $(STAMP)  ## score new files: make predict RUN=runs/… INPUT=folder [OUT=folder] [MASKS=folder]
	$(need_run)
	@test -n $(call quote,$(INPUT)) || { echo "which files? make predict RUN=runs/… INPUT=folder" >&2; exit 2; }
	@$(RUNNER) -m anomaly_lab predict $(call quote,$(RUN)) $(call quote,$(INPUT)) $(if $(OUT),--out $(call quote,$(OUT))) $(if $(MASKS),--masks $(call quote,$(MASKS)))

report: $(STAMP)  ## write a run's report again: make report RUN=runs/…
	$(need_run)
	@$(RUNNER) -m anomaly_lab report $(call quote,$(RUN))

study: $(STAMP)  ## many runs as one question: make study STUDY=adgan_tables jobs=2 [DRY=1]
	@test -n $(call quote,$(STUDY)) || { echo "which study? make study STUDY=…; experiments/studies has them" >&2; exit 2; }
	@$(RUNNER) -m anomaly_lab study $(call quote,$(STUDY)) $(if $(DRY),--dry-run) $(if $(PAGE),--page) $(OVERRIDES)

test: $(STAMP)  ## the fast tests
	@$(TESTS) -m "not slow and not gpu"

test-slow: $(STAMP)  ## toy problems, whole runs, kill and resume
	@$(TESTS) -m "slow and not gpu"

check: $(STAMP)  ## format, lint, types and floors, as pre-commit does
	@$(RUNNER) -m ruff format --check .
	@$(RUNNER) -m ruff check .
	@$(RUNNER) -m mypy
	@$(VENV)/bin/lint-imports

format: $(STAMP)  ## let ruff format and repair what it can
	@$(RUNNER) -m ruff format .
	@$(RUNNER) -m ruff check --fix .

# A peer and all it needs live outside .venv; what both have is of the same version.
PEERS := anomaly_lab/bench/peers
.peers/%/.complete: requirements.lock $(wildcard $(PEERS)/*.txt) | $(STAMP)
	@test -e $(PEERS)/$*.txt || { echo "no peer '$*'; there are: $(basename $(notdir $(wildcard $(PEERS)/*.txt)))" >&2; exit 2; }
	@echo "setting up .peers/$*: once, a few minutes and some GB"
	@rm -rf .peers/$*
	@$(RUNNER) -m venv .peers/$*
	@.peers/$*/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint requirements.lock --requirement $(PEERS)/$*.txt
	@touch $@

bench: $(STAMP) $(PEER:%=.peers/%/.complete)  ## speed and memory; against a peer: make bench PEER=anomalib
	@$(RUNNER) -m anomaly_lab bench $(if $(PEER),--peer $(call quote,$(PEER))) $(if $(OUT),--out $(call quote,$(OUT))) $(OVERRIDES)

# What builds the site needs nothing of the package's own: docstrings are read, not imported.
DOCS := .venv-docs
$(DOCS)/.complete: docs/requirements.txt
	@"$(PYTHON)" -c $(new_enough) 2>/dev/null || \
	  { echo "Python 3.11 or newer is needed: install it or say make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setting up $(DOCS): once, half a minute"
	@rm -rf $(DOCS)
	@"$(PYTHON)" -m venv $(DOCS)
	@$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement docs/requirements.txt
	@touch $@

docs: $(DOCS)/.complete  ## build the documentation into site/; a warning is an error
	@$(DOCS)/bin/python docs/methods/diagrams.py --check || \
	  { echo "pictures differ from their descriptions: python docs/methods/diagrams.py writes them" >&2; exit 2; }
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	@echo "site/index.html"

docker:  ## build the image; CUDA: make docker TORCH_INDEX=https://download.pytorch.org/whl/cu130
	docker build --file docker/Dockerfile $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) --tag $(IMAGE) .

clean:  ## remove .venv, .peers, caches and build products; runs, data and stores stay
	@rm -rf $(VENV) .peers $(DOCS) site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find anomaly_lab tests -name __pycache__ -type d -prune -exec rm -rf {} +
