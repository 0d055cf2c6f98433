# Everything runs in .venv; delete it to start afresh.
PYTHON ?= python3
MINUTES ?= 10
SEED ?= $(shell date +%s)
BIN := .venv/bin
# What CI installs is pinned with hashes; other machines and Pythons get the newest that fits.
PINS := $(shell $(PYTHON) -c 'import platform as p; print("tools/pins/python3.11.txt" * (p.machine() == "x86_64" and p.python_version().startswith("3.11.")))')

.PHONY: demo test check docs pins site matrix fuzz clean

# The core, PyTorch's exporter and ONNX Runtime: what an export on a desktop needs.
.venv/demo.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[export,cpu]'
	@touch $@

# Beside that, TensorRT for RTX (x86-64 only) and what the checks need. The networks of timm and torchvision
# need none of the packages that these two ask for, such as CUDA's.
.venv/test.stamp: pyproject.toml tools/pins/python3.11.txt tools/pins/torch.txt
	$(PYTHON) -m venv .venv
ifneq ($(PINS),)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r $(PINS)
	$(BIN)/python -m pip install --quiet -r tools/pins/torch.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
else
	$(BIN)/python -m pip install --quiet -e '.[export,cpu,rtx,report,sign,opencv,fleet,dev]'
	$(BIN)/python -m pip install --quiet --no-deps timm torchvision
endif
	@touch $@ .venv/demo.stamp

# TensorRT's bindings without its libraries, 1 MB each: every name that cnnx calls is held to them. The dash:
# not every Python and machine has such wheels, and the test that wants them says so. Of Triton's client, tests
# read the messages alone: installed, it would replace protobuf.
build/wheels.stamp: .venv/test.stamp
	@mkdir -p build/wheels
	-$(BIN)/python -m pip download --quiet --no-deps --dest build/wheels tensorrt-cu12-bindings==10.3.0
	-$(BIN)/python -m pip download --quiet --no-deps --dest build/wheels tensorrt-cu12-bindings==10.16.0.72
	-$(BIN)/python -m pip download --quiet --no-deps --dest build/wheels tensorrt-cu13-bindings==11.4.0.106
	-$(BIN)/python -m pip download --quiet --no-deps --dest build/tritonclient tritonclient==2.73.0
ifneq ($(PINS),)
	cd build && sha256sum --check --quiet ../tools/pins/wheels.sha256
endif
	@touch $@

demo: .venv/demo.stamp  ## LeNet-5 in INT8 on handwritten digits, judged
	$(BIN)/cnnx export lenet5 --int8

test: .venv/test.stamp check build/wheels.stamp  ## every check and every test
	CNNX_TENSORRT_WHEELS=build/wheels $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

check: .venv/test.stamp  ## style, types, imports, sizes, generated pages, words, the documentation site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.check.size_report --check
	$(BIN)/python -m tools.docs.help_page --check
	$(BIN)/python -m tools.docs.schemas_page --check
	$(BIN)/python -m tools.docs.devices_page --check
	$(BIN)/python -m tools.docs.peaks_page --check
ifneq ($(PINS),)
	$(BIN)/python -m tools.docs.licenses_page --check
endif
	$(BIN)/python -m tools.check.vocabulary
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

docs: .venv/test.stamp  ## write docs/help.md from the commands, docs/schemas from the types, docs/devices.md from archives, the peaks in docs/roofline.md, docs/licenses.md
	$(BIN)/python -m tools.docs.help_page
	$(BIN)/python -m tools.docs.schemas_page
	$(BIN)/python -m tools.docs.devices_page
	$(BIN)/python -m tools.docs.peaks_page
	$(BIN)/python -m tools.docs.licenses_page

pins: .venv/test.stamp build/wheels.stamp  ## pin the newest releases for CI, to tools/pins
	$(BIN)/python -m tools.pins
	cd build && sha256sum wheels/*.whl tritonclient/*.whl > ../tools/pins/wheels.sha256

site: .venv/test.stamp  ## build/site: the documentation, to be opened from disk
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

matrix: .venv/test.stamp  ## every recipe in every precision, to docs/matrix.md; continues where it stopped
	$(BIN)/python -m tools.bench.matrix

fuzz: .venv/test.stamp  ## changed inputs at every entry point, for MINUTES; findings go to build/fuzz
	$(BIN)/python -m tools.check.fuzz --minutes $(MINUTES) --seed $(SEED)

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
