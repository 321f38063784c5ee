# Two commands do everything on a machine with Python 3.11: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data

# Large arrays in huge pages: on Linux, XLA's CPU steps take about a third less time. Ignored elsewhere.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-slow real lint format clean

demo: $(VENV)/.installed
	$(BIN)/python -m class_jax.demo.run --out runs/demo

test: $(VENV)/.torch lint
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(VENV)/.torch
	$(BIN)/python -m pytest -m slow

real: $(VENV)/.installed
	$(BIN)/python -m class_jax.demo.real --data $(DATA) --out runs/real_parallel

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11), sys.version' || \
	  { echo "class_jax needs Python 3.11: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/.torch: $(VENV)/.installed
	$(BIN)/pip install --quiet torch==2.13.0
	touch $@

clean:
	rm -rf $(VENV) runs build dist *.egg-info
