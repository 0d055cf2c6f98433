# Everything runs in .venv; delete it to start afresh.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check docs matrix clean

# The core, PyTorch's exporter and ONNX Runtime: what an export on a desktop needs.
.venv/demo.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[export,cpu]'
	@touch $@

# Beside that, TensorRT for RTX (x86-64 only) and what the checks need.
.venv/test.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[export,cpu,rtx,report,dev]'
	@touch $@ .venv/demo.stamp

demo: .venv/demo.stamp  ## LeNet-5 in INT8 on handwritten digits, judged
	$(BIN)/cnnx export lenet5 --int8

test: .venv/test.stamp check  ## every check and every test
	$(BIN)/python -m pytest

check: .venv/test.stamp  ## style, types, imports, sizes, generated help
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/size_report.py --check
	$(BIN)/python tools/help_page.py --check

docs: .venv/test.stamp  ## write docs/help.md from the commands themselves
	$(BIN)/python tools/help_page.py

matrix: .venv/test.stamp  ## every recipe in every precision, to docs/matrix.md; continues where it stopped
	$(BIN)/python tools/matrix.py

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
