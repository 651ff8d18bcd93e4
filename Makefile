# Entry point. Lower-case words are settings of the experiment (detector.latent_dim=64), upper-case words belong to make.

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
  $$name -c $(new_enough) 2>/dev/null && echo $$name && break; done)
new_enough := 'import sys; sys.exit(sys.version_info < (3, 11))'

VENV := .venv
STAMP := $(VENV)/.complete
RUNNER := $(VENV)/bin/python
IMAGE := anomaly-lab
# One worker per core and one thread per worker: small tensors do not benefit from a second thread.
TESTS = OMP_NUM_THREADS=1 $(RUNNER) -m pytest -q --numprocesses=auto --dist=worksteal

# Every lower-case key=value given on the command line, quoted so that neither make nor the shell expands it.
quote = '$(subst ','\'',$(1))'
capital := A% B% C% D% E% F% G% H% I% J% K% L% M% N% O% P% Q% R% S% T% U% V% W% X% Y% Z%
typed = $(if $(filter command,$(origin $(1))),$(call quote,$(1)=$(value $(1))))
OVERRIDES = $(foreach key,$(sort $(filter-out $(capital) -% .%,$(.VARIABLES))),$(call typed,$(key)))

# A capital word that was given on the command line, as it was given, for the shell; and whether one says yes. What the
# environment holds under such a name is somebody else's.
said = $(if $(filter command,$(origin $(1))),$(value $(1)))
quoted = $(call quote,$(said))
yes = $(filter-out 0 no No NO false False FALSE off Off OFF,$(said))
option = $(if $(said),$(2) $(quoted))

# Capital words of each target. Any other one is refused: passed over in silence, DRY_RUN=1 would train a whole study.
takes.show := EXP
takes.data := EXP DATA VERIFY
takes.train := EXP INTO
takes.resume := RUN DATA_ROOT ACCEPT_CHANGED_DATA
takes.evaluate := RUN CHECKPOINT DATA_ROOT ACCEPT_CHANGED_DATA
takes.quality := RUN DATA_ROOT ACCEPT_CHANGED_DATA
takes.predict := RUN INPUT OUT MASKS OVERWRITE ANYWAY
takes.export := RUN FORMAT OUT
takes.serve := RUN
takes.card := RUN
takes.report := RUN
takes.study := STUDY DATA DRY PAGE STATUS
takes.tune := EXP
takes.bench := PEER SECTION OUT
takes.docker := TORCH_INDEX IMAGE
everywhere := PYTHON TRUST VENV SHELL ANOMALY_% CUDA_% DOCKER_% HF_% HTTP_% HTTPS_% HYDRA_% MKL_% MLFLOW_% NCCL_% NO_% OMP_% \
  PYTORCH_% TORCH_% WANDB_%  # after TRUST what programs take
goals := $(or $(MAKECMDGOALS),help)
taken := $(strip $(foreach goal,$(goals),$(takes.$(goal))))
given := $(foreach word,$(filter $(capital),$(.VARIABLES)),$(if $(filter command,$(origin $(word))),$(word)))
ifeq ($(MAKELEVEL),0)  # an outer make hands its own words down
ifneq ($(filter-out $(taken) $(everywhere),$(given)),)
$(error make $(goals) takes no $(filter-out $(taken) $(everywhere),$(given)); it takes $(or $(taken),no such word))
endif
endif

# Make would expand these to hand them on to the commands' environment, and run what a file's name holds in $(shell …).
unexport $(foreach word,$(.VARIABLES),$(if $(filter command,$(origin $(word))),$(filter-out $(everywhere),$(word))))

# Packages whose classes experiments and runs may name, beside anomaly_lab: TRUST=mygan.
ifneq ($(call said,TRUST),)
export ANOMALY_TRUST := $(value TRUST)
endif

# What a run's data have become: DATA_ROOT=where they lie now, ACCEPT_CHANGED_DATA=1.
DATA_WORDS = $(call option,DATA_ROOT,--data-root) $(if $(call yes,ACCEPT_CHANGED_DATA),--accept-changed-data)

need_exp = @test -n $(call quoted,EXP) || { echo "which experiment? make $@ EXP=…; 'make list' shows all" >&2; exit 2; }
need_data = @test -n $(call quote,$(call said,DATA)$(call said,EXP)) || { echo "which data set? make $@ DATA=…; 'make list' shows all" >&2; exit 2; }
need_run = @test -n $(call quoted,RUN) || { echo "which run? make $@ RUN=runs/…" >&2; exit 2; }

.DEFAULT_GOAL := help
.PHONY: help setup list show data train resume evaluate quality predict report study tune runs dashboard export serve card test test-slow test-gpu check format bench docs docker clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# Of several makes at once, one sets up and the others wait; the lock ends with the process that holds it.
one_by_one := 'import fcntl, os, sys; lock = os.open("$(VENV).lock", os.O_CREAT | os.O_RDWR); \
  os.set_inheritable(lock, True); fcntl.flock(lock, fcntl.LOCK_EX); os.execvp(sys.argv[1], sys.argv[1:])'

# Rebuilt from scratch if a previous set-up was interrupted; updated if the pinned versions changed.
$(STAMP): requirements.lock pyproject.toml
ifndef SETTING_UP
	@"$(PYTHON)" -c $(new_enough) 2>/dev/null || \
	  { echo "Python 3.11 or newer is needed: install it or run make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c $(one_by_one) $(MAKE) --no-print-directory SETTING_UP=1 $(STAMP)
else
	@test -e $(STAMP) || rm -rf $(VENV)
	@echo "setting up $(VENV) (once, a few minutes)"
	@"$(PYTHON)" -m venv $(VENV)
	@$(RUNNER) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(RUNNER) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)
endif

setup: $(STAMP)  ## create .venv from requirements.lock (other targets do this when needed)

list: $(STAMP)  ## list all detectors, data sets and experiments
	@$(RUNNER) -m anomaly_lab list

show: $(STAMP)  ## print an experiment with all defaults: make show EXP=fanogan_headct
	$(need_exp)
	@$(RUNNER) -m anomaly_lab show $(call quoted,EXP) $(OVERRIDES)

data: $(STAMP)  ## build the store and a data sheet: make data DATA=headct data.root=… [VERIFY=1]
	$(need_data)
	@$(RUNNER) -m anomaly_lab data $(call quoted,$(if $(call said,EXP),EXP,DATA)) $(if $(call yes,VERIFY),--verify) $(OVERRIDES)

train: $(STAMP)  ## train, evaluate, report: make train EXP=fanogan_headct detector.latent_dim=64 [INTO=runs/…]
	$(need_exp)
	@$(RUNNER) -m anomaly_lab train $(call quoted,EXP) $(call option,INTO,--into) $(OVERRIDES)

resume: $(STAMP)  ## continue a stopped run: make resume RUN=runs/…
	$(need_run)
	@$(RUNNER) -m anomaly_lab resume $(call quoted,RUN) $(DATA_WORDS) $(OVERRIDES)

evaluate: $(STAMP)  ## score and evaluate a run, or a folder of runs, again: make evaluate RUN=runs/… [scores=recorded]
	$(need_run)
	@$(RUNNER) -m anomaly_lab evaluate $(call quoted,RUN) $(DATA_WORDS) $(call option,CHECKPOINT,--checkpoint) $(OVERRIDES)

quality: $(STAMP)  ## measure a run's generated and reconstructed images: make quality RUN=runs/… [samples=2000]
	$(need_run)
	@$(RUNNER) -m anomaly_lab quality $(call quoted,RUN) $(DATA_WORDS) $(OVERRIDES)

predict: $(STAMP)  ## score new files: make predict RUN=runs/… INPUT=folder [OUT=folder] [MASKS=folder] [OVERWRITE=1] [ANYWAY=1]
	$(need_run)
	@test -n $(call quoted,INPUT) || { echo "which files? make predict RUN=runs/… INPUT=folder" >&2; exit 2; }
	@$(RUNNER) -m anomaly_lab predict $(call quoted,RUN) $(call quoted,INPUT) $(call option,OUT,--out) $(call option,MASKS,--masks) $(if $(call yes,OVERWRITE),--overwrite) $(if $(call yes,ANYWAY),--anyway) $(OVERRIDES)

export: $(STAMP)  ## write a run as a model that needs no torch: make export RUN=runs/… [FORMAT=onnx|pt2] [OUT=folder]
	$(need_run)
	@$(RUNNER) -m anomaly_lab export $(call quoted,RUN) $(call option,FORMAT,--format) $(call option,OUT,--out) $(OVERRIDES)

serve: $(STAMP)  ## score uploads: make serve RUN=runs/… [host=127.0.0.1 port=8000]; needs pip install 'anomaly_lab[serve]'
	$(need_run)
	@$(RUNNER) -m anomaly_lab serve $(call quoted,RUN) $(OVERRIDES)

card: $(STAMP)  ## write a run's model_card.md and claim.md: make card RUN=runs/…
	$(need_run)
	@$(RUNNER) -m anomaly_lab card $(call quoted,RUN) $(OVERRIDES)

report: $(STAMP)  ## write a run's report again: make report RUN=runs/…
	$(need_run)
	@$(RUNNER) -m anomaly_lab report $(call quoted,RUN) $(OVERRIDES)

study: $(STAMP)  ## train and compare many runs: make study STUDY=adgan_tables jobs=2 [DATA=folder] [launcher=slurm] [DRY=1|PAGE=1|STATUS=1]
	@test -n $(call quoted,STUDY) || { echo "which study? make study STUDY=…; experiments/studies has all" >&2; exit 2; }
	@$(RUNNER) -m anomaly_lab study $(call quoted,STUDY) $(if $(call said,DATA),data=$(call quoted,DATA)) $(if $(call yes,DRY),--dry-run) $(if $(call yes,PAGE),--page) $(if $(call yes,STATUS),--status) $(OVERRIDES)

tune: $(STAMP)  ## choose settings by planted lesions: make tune EXP=… params='detector.lr=log(1e-5,1e-2)' trials=20
	$(need_exp)
	@$(RUNNER) -m anomaly_lab tune $(call quoted,EXP) $(OVERRIDES)

runs: $(STAMP)  ## write one page over all runs, to sort, filter and compare them: make runs [runs=folder]
	@$(RUNNER) -m anomaly_lab runs $(OVERRIDES)

dashboard: $(STAMP)  ## serve that page to this machine; it follows runs that train: make dashboard [runs=folder] [port=8765]
	@$(RUNNER) -m anomaly_lab dashboard $(OVERRIDES)

test: $(STAMP)  ## run the fast tests
	@$(TESTS) -m "not slow and not gpu"

test-slow: $(STAMP)  ## run the slow tests: toy problems, whole runs, kill and resume
	@$(TESTS) -m "slow and not gpu"

test-gpu: $(STAMP)  ## run the tests that need a GPU
	@$(RUNNER) -m pytest -q -m gpu

check: $(STAMP)  ## check format, lint, types and import layers, as pre-commit does
	@$(RUNNER) -m ruff format --check .
	@$(RUNNER) -m ruff check .
	@$(RUNNER) -m mypy
	@$(VENV)/bin/lint-imports

format: $(STAMP)  ## format the code and apply ruff's automatic fixes
	@$(RUNNER) -m ruff format .
	@$(RUNNER) -m ruff check --fix .

# A peer library is installed outside .venv; shared dependencies have the versions of requirements.lock.
PEERS := anomaly_lab/bench/peers
peer := $(call said,PEER)
peers := $(basename $(notdir $(wildcard $(PEERS)/*.txt)))
ifneq ($(filter-out $(peers),$(peer)),)
$(error no peer '$(peer)'; there are: $(peers))
endif
.peers/%/.complete: requirements.lock $(wildcard $(PEERS)/*.txt) | $(STAMP)
	@echo "setting up .peers/$* (once, a few minutes and several GB)"
	@rm -rf .peers/$*
	@$(RUNNER) -m venv .peers/$*
	@.peers/$*/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint requirements.lock --requirement $(PEERS)/$*.txt
	@touch $@

bench: $(STAMP) $(peer:%=.peers/%/.complete)  ## measure speed and memory: make bench [PEER=anomalib|SECTION=gpu|hq|dashboard|export|serve]
	@$(RUNNER) -m anomaly_lab bench $(call option,SECTION,--section) $(call option,PEER,--peer) $(call option,OUT,--out) $(OVERRIDES)

# The site is built without the package's dependencies: docstrings are parsed, not imported.
DOCS := .venv-docs
$(DOCS)/.complete: docs/requirements.txt
	@"$(PYTHON)" -c $(new_enough) 2>/dev/null || \
	  { echo "Python 3.11 or newer is needed: install it or run make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setting up $(DOCS) (once, half a minute)"
	@rm -rf $(DOCS)
	@"$(PYTHON)" -m venv $(DOCS)
	@$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement docs/requirements.txt
	@touch $@

docs: $(DOCS)/.complete  ## build the documentation in site/; warnings are errors
	@$(DOCS)/bin/python docs/methods/diagrams.py --check || \
	  { echo "diagrams are out of date: run python docs/methods/diagrams.py" >&2; exit 2; }
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	@echo "site/index.html"

docker:  ## build the Docker image; CUDA: make docker TORCH_INDEX=https://download.pytorch.org/whl/cu130
	docker build --file docker/Dockerfile $(if $(call said,TORCH_INDEX),--build-arg $(call quote,TORCH_INDEX=$(value TORCH_INDEX))) --tag $(call quote,$(value IMAGE)) .

clean:  ## remove .venv, .peers, caches and build products; keep runs, data and stores
	@rm -rf $(VENV) $(VENV).lock .peers $(DOCS) site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find anomaly_lab tests -name __pycache__ -type d -prune -exec rm -rf {} +
