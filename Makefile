# make install | demo | test | lint | bench | notebooks | lab
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
LOG := $(VENV)/install.log
WORKERS ?= 2
RAY := $(wildcard tests/*/test_ray_*.py)

.PHONY: install demo test lint types unit bench notebooks lab clean

install: $(STAMP)

# Nothing is installed twice: the stamp is newer than what it depends on.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there; install Python 3.11 or newer, or name it: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); elastibench needs Python 3.11 or newer. Name one: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "could not make $(VENV): the venv module of $(PYTHON) is missing (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	@echo "installing into $(VENV) (about 2.5 GB; some minutes)"
	@$(BIN)/python -m pip install --disable-pip-version-check --no-input -c constraints.txt -e '.[dev]' > $(LOG) 2>&1 || \
	  { echo "installation failed; what pip says of it:"; \
	    sed -n '/ERROR\|error:\|No space left/,$$p' $(LOG) | grep -v 'Ignored the following\|^ *$$\|notice' | cut -c1-300 | head -n 15; \
	    echo "its last step: $$(grep -E '^ *(Collecting|Downloading|Building|Installing)' $(LOG) | tail -n 1 | sed 's/^ *//')"; \
	    echo "(the whole log: $(LOG))"; exit 1; }
	@touch $@

demo: $(STAMP)
	$(BIN)/elastibench run examples/demo.yaml

test: lint unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	@shopt -s nullglob; files=(notebooks/*.ipynb); if (( $${#files[@]} )); then $(BIN)/nbstripout --verify "$${files[@]}"; fi

# One intra-op thread per worker: two workers with two threads each take longer than one. Ray's cluster needs the processors for itself.
unit: $(STAMP)
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(RAY:%=--ignore %)
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest $(RAY)

bench: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks

# The notebooks look at the demo's run folder.
notebooks: demo
	$(BIN)/python -m jupyter nbconvert --to notebook --execute --output-dir runs/notebooks notebooks/*.ipynb

lab: $(STAMP)
	$(BIN)/python -m jupyter lab notebooks

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
