# `make demo` and `make test` need python3 (3.11 or later, with venv) and g++; they install everything else into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
BUILT  := pyproject.toml CMakeLists.txt $(wildcard private_keras/*/native/*)

.PHONY: demo test test-long bench lint clean help

help:
	@echo "make demo       predict encrypted handwritten digits with a Keras model, then train a logistic regression on shares"
	@echo "make test       all tests that are not marked long"
	@echo "make test-long  the long ones: 10^8 truncations and the like"
	@echo "make bench      how fast everything is, about 20 minutes; make bench ARGS='--quick --only relu,A-' for a part"
	@echo "make lint       ruff over the whole tree"
	@echo "make clean      remove the environment and what was built"

demo: $(VENV)/demo.stamp
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python examples/predict_digits.py
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python examples/logistic_regression.py

test: $(VENV)/test.stamp
	$(BIN)/pytest -m "not long"

test-long: $(VENV)/test.stamp
	$(BIN)/pytest -m long --timeout 3600

bench: $(VENV)/demo.stamp
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m benchmarks run $(ARGS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) build out

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "venv is missing; on Debian: apt install python3-venv python3-dev g++" >&2; exit 1; }

# Installed in place (-e), so that an edited Python file needs no second install; the kernel is built again when it changed.
$(VENV)/%.stamp: $(BUILT) | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[$*]"
	@touch $@
