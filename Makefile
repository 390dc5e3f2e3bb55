# `make run` and `make test` need Python 3.11 or later, make and a compiler; everything else they bring along.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Half of the tests wait for processes of their own: three at a time keep two cores busy.
WORKERS ?= 3

.PHONY: run test faults soak fuzz bench bench-server docs-nodes lint clean lock

# Installed again when the pins or the package's own description change.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	@echo "installing what the tests need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@

run: $(VENV)/.installed  ## start a server with embedded Postgres, save the examples and show one at work
	@exec $(BIN)/flowserver serve --examples examples --demo hello

test: $(VENV)/.installed-dev  ## run all tests, on a Postgres of their own
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

faults: $(VENV)/.installed-dev  ## kill a server at every single statement of several drawings; some minutes
	@$(BIN)/python -m pytest -n $(WORKERS) -m faults $(ARGS)

soak: $(VENV)/.installed-dev  ## two servers, two workers, everything breaks: for MINUTES=20, with SEED=
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),20) $(if $(SEED),--seed $(SEED))

fuzz: $(VENV)/.installed-dev  ## random drawings against the reference interpreter, for MINUTES=30, from fresh seeds
	@FUZZ_MINUTES=$(or $(MINUTES),30) $(BIN)/python -m pytest -n $(WORKERS) tests/graphs/test_meaning.py $(ARGS)

bench: $(VENV)/.installed  ## compile times, and runs beside LangGraph by hand, as a table
	@$(BIN)/python benchmarks/compiled.py --postgres

bench-server: $(VENV)/.installed  ## the server beside one written by hand: requests, streams, answers, take-over
	@$(BIN)/python -m benchmarks.server $(ARGS)

docs-nodes: $(VENV)/.installed  ## write a page of docs/nodes for each node type
	@$(BIN)/flowserver nodes --docs docs/nodes

lint: $(VENV)/.installed-dev  ## linters, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock:  ## write the newest versions that fit pyproject.toml into the two lock files
	rm -rf build/lock && mkdir -p build/lock && $(PYTHON) -m venv build/lock/all && $(PYTHON) -m venv build/lock/run
	@# What the tests need fits what runs, not the other way round: pip would try for an hour.
	build/lock/all/bin/python -m pip install --quiet '.[dev]'
	build/lock/all/bin/python -m pip freeze --exclude flowserver > build/lock/pins
	build/lock/run/bin/python -m pip install --quiet . -c build/lock/pins
	build/lock/run/bin/python -m pip freeze --exclude flowserver > requirements.lock
	grep -vxFf requirements.lock build/lock/pins > requirements-dev.lock
	rm -rf build/lock

clean:
	rm -rf $(VENV) dist build *.egg-info
