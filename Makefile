PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup bench test test-slow lint sanitize sanitize-cpu sanitize-triton asv clean

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

sanitize: sanitize-cpu sanitize-triton

# The CPU kernel's matrix on a build that stops at the first bad address or undefined operation; torch itself leaks by design.
sanitize-cpu: setup
	RLS_CPU_BUILD=sanitized OMP_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libubsan.so)" \
		$(BIN)/python -m pytest -m 'not slow' tests/kernels/cpu/test_agreement.py tests/kernels/cpu/test_attention.py \
		tests/kernels/cpu/test_gradients.py

# Reads out of bounds and races in the Triton kernels, without a GPU. ttsem declares Python >= 3.12 and runs on 3.11.
sanitize-triton: setup
	$(BIN)/python -c 'import ttsem' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --ignore-requires-python --no-deps -c constraints.txt ttsem
	$(BIN)/python -m ttsem.sanitize tests/kernels/triton_sanitized.py

clean:
	rm -rf $(VENV) .asv
