# Two commands do everything: `make book` and `make test`. They need Python >= 3.11, git and make.
PYTHON ?= python3
PROFILE ?= quick
COLAB_PYTHON ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python) python3.13)
ENV := .venv
BIN := $(ENV)/bin

.PHONY: book test colab bill clean

book: $(ENV)/ready
	$(BIN)/fmlib book build --profile $(PROFILE)

# Two processes run the tests, each with one thread: threads of several processes on few cores wait for each other.
test: export OMP_NUM_THREADS = 1
test: export OPENBLAS_NUM_THREADS = 1
test: $(ENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The chapters, run as on Colab. Not part of `test`: it installs Colab's versions of torch and the like, for Colab's Python.
colab: $(ENV)/ready .venv-colab/ready
	$(BIN)/pytest ci/test_colab.py

# A bill of materials (CycloneDX) of the environment.
bill: $(ENV)/ready
	$(BIN)/python ci/supply_chain.py bill _build/bill.json

$(ENV)/ready: pyproject.toml ci/constraints.txt
	$(PYTHON) -m venv $(ENV)
	$(BIN)/pip install --quiet --require-hashes --no-deps --requirement ci/constraints.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.venv-colab/ready: ci/colab.txt
	$(COLAB_PYTHON) -m venv .venv-colab
	.venv-colab/bin/pip install --quiet --only-binary :all: --requirement ci/colab.txt
	touch $@

clean:
	rm -rf _build $(ENV) .venv-colab
