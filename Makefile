# One command runs the main job, one passes the tests; each sets up what it needs.
PYTHON ?= python3.11
VENV ?= .venv
PORF = $(VENV)/bin/porf
READY = $(VENV)/.ready
TESTS ?= tests
# one thread a test process, and as many processes as there are cores; a file's tests share what
# they set up
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test test-all lint types docs setup clean

demo: setup            ## render photos of a known object, reconstruct and measure it
	$(PORF) demo -o demo

test: setup            ## the default test suite
	$(PYTEST) -m "not slow" $(TESTS)

test-all: setup        ## the slow ones too
	$(PYTEST) $(TESTS)

lint: setup            ## style, the image, the compose files against their schema
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/hadolint docker/Dockerfile
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yml docker/workers.yml

types: setup           ## static types
	$(VENV)/bin/mypy

docs: setup            ## the guides as a site, in build/site; a broken link fails
	$(VENV)/bin/mkdocs build -d build/site

setup: $(READY)

# torch first and by its exact version: a plain `torch` may bring a CUDA build of several GB
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:                 ## remove the environment; results stay
	rm -rf $(VENV)
