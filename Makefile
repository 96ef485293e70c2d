# `make demo` and `make test` are all the set-up there is: each makes what it needs and runs.
PYTHON ?= python3
VENV   ?= .venv
PIP    := $(VENV)/bin/pip install --quiet --disable-pip-version-check

.PHONY: help demo test lint types clean

help:
	@echo 'make demo           a recorded robot camera, described and asked about, on this machine (VIEW=1: live viewer)'
	@echo 'make test           style, types and all tests'
	@echo 'make clean          remove the environment and everything made'

demo: $(VENV)/ready-demo$(if $(VIEW),-view)
	$(VENV)/bin/penguin demo --out out/demo $(if $(VIEW),--view)

test: $(VENV)/ready-test lint types
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/ready-test
	$(VENV)/bin/ruff check .

types: $(VENV)/ready-test $(VENV)/tensorrt-stubs
	$(VENV)/bin/mypy
	$(VENV)/bin/python tests/backends/check_tensorrt_types.py $(VENV)/tensorrt-stubs

clean:
	rm -rf $(VENV) .cache build install log out .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/pip:
	@echo 'making a Python environment in $(VENV)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready-demo: pyproject.toml | $(VENV)/bin/pip
	@echo 'installing what the demonstration needs (about 150 MB)'
	$(PIP) -e '.[onnx,dds,plot]'
	touch $@

$(VENV)/ready-demo-view: $(VENV)/ready-demo
	@echo 'installing the viewer (about 100 MB)'
	$(PIP) -e '.[view]'
	touch $@

$(VENV)/ready-test: pyproject.toml | $(VENV)/bin/pip
	@echo 'installing what the tests need (about 600 MB, PyTorch for the most part)'
	$(PIP) torch==2.13.0
	$(PIP) -e '.[onnx,dds,plot,train,export,bench,test]'
	touch $@

# Signatures of TensorRT's bindings for the type checker; never among the installed packages, where they would pass for it.
$(VENV)/tensorrt-stubs: | $(VENV)/bin/pip
	$(PIP) --no-deps --target $@ tensorrt-stubs==10.13.0.35.1
