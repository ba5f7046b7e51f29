PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup bench test test-slow lint asv clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

bench: setup
	$(BIN)/rls-bench run

test: setup
	$(BIN)/python -m pytest -m 'not slow'

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Latency and error of this commit on this machine, kept under results/asv.
ASV_MACHINE ?= laptop
asv: setup
	$(BIN)/asv machine --machine $(ASV_MACHINE) --yes
	$(BIN)/asv run --machine $(ASV_MACHINE) --set-commit-hash $$(git rev-parse HEAD) --record-samples

clean:
	rm -rf $(VENV) .asv
