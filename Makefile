# `make demo` and `make test` build .venv from requirements.lock by themselves. make help lists the rest.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
# What runs here keeps its caches here; models of the Hugging Face hub stay in the user's own.
export HF_HOME ?= $(HOME)/.cache/huggingface
export DVC_SITE_CACHE_DIR := $(CURDIR)/.cache/dvc
pip := $(BIN)/python -m pip --quiet --disable-pip-version-check
run := XDG_CACHE_HOME=$(CURDIR)/.cache $(BIN)/python -m

.DEFAULT_GOAL := help
.PHONY: help demo test faults up down study lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## the whole life of a student on the tiny profile: table, picture, registered model; 4 minutes
	@$(run) flows.demo

test: $(STAMP) ## lint, format and every test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(run) pytest

faults: $(STAMP) ## the long form of the fault suite: hundreds of kills, and a table of what was survived
	$(run) pytest tests/faults tests/test_launch.py --nightly

up: $(STAMP) ## start Prefect, MLflow and a worker here; PREFECT_PORT=4200 MLFLOW_PORT=5001
	@PREFECT_PORT=$(PREFECT_PORT) MLFLOW_PORT=$(MLFLOW_PORT) $(BIN)/python -m flows.services up

down: $(STAMP) ## stop what `make up` started
	@$(BIN)/python -m flows.services down

# The stamp is written last, so an install that was cut short is done again.
$(STAMP): requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here: install Python 3.11, or name one: make demo PYTHON=..."; exit 1; }
	@echo "installing requirements.lock into .venv; this takes some minutes, once"
	$(PYTHON) -m venv --clear .venv
	$(pip) install --requirement requirements.lock
	$(pip) install --no-deps --editable .
	@touch $@

study: $(STAMP) ## the paper's tables and figures on the tiny profile: runs what studies/REPORT.md lacks; QUICK=1: in short
	@PATH=$(CURDIR)/$(BIN):$$PATH $(run) studies.all studies$(if $(QUICK),/quick)

lock: $(STAMP) ## pin what pyproject.toml asks for, for Linux and macOS; pins that still suit it stay
	$(pip) install uv
	@mkdir -p .cache && cp requirements.lock .cache/requirements.lock
	$(BIN)/uv pip compile --universal --quiet --python-version 3.11 --extra dev --no-header \
	  pyproject.toml --output-file .cache/requirements.lock
	@(echo "# Made by \`make lock\` (uv pip compile --universal): exact versions, for Linux and macOS."; \
	  cat .cache/requirements.lock) > requirements.lock
