# Two commands do everything on a machine with Python 3.13, 3.12 or 3.11: `make demo` and `make test`.
# The newest of these is taken; another: make PYTHON=/path/to/python3.12. Environments:
#   .venv        all extras and what developers need, by uv.lock
#   .venv-core   only the core, on Python 3.11, where JAX and Flax are older
#   .venv-torch  the core, PyTorch and transformers, for tests of parity; Python 3.11 and pip
#   .venv-mutation  Cosmic Ray, for `make mutate`
BIN := .venv/bin
DATA ?= ../shared/data
# uv of the PATH, else one in an environment of its own.
UV := $(or $(shell command -v uv),.venv-uv/bin/uv)
PARALLEL := -n 2 --dist loadfile
marked = $$(grep -rl --include='test_*.py' 'mark\.$(1)' tests)

# Large arrays in huge pages: on Linux, XLA's CPU steps take about a third less time. Ignored elsewhere.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo real test test-newest test-core test-torch test-slow mutate lint typecheck format lock clean

demo: .venv/.installed
	$(BIN)/class-jax demo --out runs/demo

real: .venv/.installed
	$(BIN)/class-jax real --data $(DATA) --out runs/real_parallel

test: lint typecheck .venv-torch/.installed test-newest test-core test-torch

test-newest: .venv/.installed
	$(BIN)/python -m pytest -m "not slow and not torch" $(PARALLEL)

# Only the files with such tests are collected: the others import what these environments lack.
test-core: .venv-core/.installed
	@if [ -x .venv-core/bin/python ]; then \
	  .venv-core/bin/python -m pytest -m "core and not slow and not torch" $(PARALLEL) $(call marked,core); \
	else echo "skipped: the core's tests, which need Python 3.11"; fi

test-torch: .venv-torch/.installed
	@if [ -x .venv-torch/bin/python ]; then \
	  .venv-torch/bin/python -m pytest -m "(torch or torch_file) and not slow" $(call marked,torch); \
	else echo "skipped: the tests of parity with PyTorch, which need Python 3.11"; fi

test-slow: .venv/.installed
	$(BIN)/python -m pytest -m "slow and not torch"

# One module's mutants: make mutate MODULE=retrieval/exact OPTIONS="--size 40"; docs/MUTATION.md.
mutate: .venv/.installed .venv-mutation/.installed
	.venv-mutation/bin/python tests/mutation/mutate.py $(MODULE) --python $(BIN)/python $(OPTIONS)

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: .venv/.installed
	$(BIN)/mypy

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Resolves anew what pyproject.toml asks for; versions in uv.lock stay unless they must change.
lock: $(UV)
	$(UV) lock
	{ echo "# Exported from uv.lock by 'make lock': the extra 'all' on every Python and platform. Don't edit."; \
	  $(UV) export --quiet --frozen --extra all --no-default-groups --no-emit-project --no-hashes --no-annotate \
	    --no-header; } > requirements.txt

.venv/.installed: pyproject.toml uv.lock | $(UV)
	python=$$(.ci/find_python) && $(UV) sync --frozen --extra all --python "$$python"
	touch $@

.venv-core/.installed: pyproject.toml uv.lock | $(UV)
	if python=$$(.ci/find_python 3.11); then \
	  UV_PROJECT_ENVIRONMENT=.venv-core $(UV) sync --frozen --no-default-groups --group test --python "$$python" && \
	  touch $@; fi

.venv-torch/.installed: pyproject.toml uv.lock | $(UV)
	if python=$$(.ci/find_python 3.11); then \
	  "$$python" -m venv .venv-torch && \
	  $(UV) export --quiet --frozen --no-default-groups --group parity --no-emit-project --no-hashes \
	    --output-file .venv-torch/requirements.txt && \
	  .venv-torch/bin/pip install --quiet torch==2.13.0 --requirement .venv-torch/requirements.txt && \
	  .venv-torch/bin/pip install --quiet --no-deps --editable . && \
	  touch $@; fi

.venv-mutation/.installed: pyproject.toml uv.lock | $(UV)
	python=$$(.ci/find_python) && UV_PROJECT_ENVIRONMENT=.venv-mutation \
	  $(UV) sync --frozen --only-group mutation --no-install-project --python "$$python"
	touch $@

.venv-uv/bin/uv:
	python=$$(.ci/find_python) && "$$python" -m venv .venv-uv && .venv-uv/bin/pip install --quiet uv==0.13.9

clean:
	rm -rf .venv .venv-core .venv-torch .venv-mutation .venv-uv runs build dist *.egg-info
