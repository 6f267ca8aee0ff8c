# Two commands from nothing: `make verify` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV ?= .venv
PYTHONS ?= 3.11 3.12 3.13
BIN = $(VENV)/bin
STAMPS = $(VENV)/.stamps

.PHONY: verify test lint matrix figures worst-case certify clean
.DELETE_ON_ERROR:

# The core environment is enough for the rate checks; the tests need the extras too.
$(STAMPS)/core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/test: $(STAMPS)/core
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[deep,pep,test]'
	touch $@

verify: $(STAMPS)/core
	$(BIN)/python -m theory.verify_rates

# A process a core: a file's tests stay together, they share what it makes. More than four gain little.
test: $(STAMPS)/test lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(STAMPS)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tests on every supported Python that is here, each in an environment of its own.
matrix:
	@for v in $(PYTHONS); do \
	  if python$$v -c "" 2>/dev/null; then \
	    echo "== Python $$v"; \
	    $(MAKE) --no-print-directory test PYTHON=python$$v VENV=.venv-$$v || exit 1; \
	  else echo "== Python $$v is not on this machine"; fi; \
	done

figures: $(STAMPS)/test
	$(BIN)/python -m figures

worst-case: $(STAMPS)/test
	$(BIN)/python -m theory.worst_case

certify:
	python3 theory/worst_case/verify.py theory/results/certificates/*.jsonl

clean:
	rm -rf $(VENV) .venv-* build *.egg-info
