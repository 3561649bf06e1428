# Every target sets up what it needs; each is written out as plain commands in README.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
USABLE := $(VENV)/.usable
DOCUMENTING := $(VENV)/.documenting
MATHJAX := build/mathjax-3.2.2

.PHONY: setup demo test test-browser test-hostile test-slow coverage lint docs gallery screenshots bench clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# What using diffspace takes; the tools of its tests, which $(INSTALLED) adds, are several times as large.
$(USABLE): pyproject.toml constraints.txt
	test -e $(INSTALLED) || { $(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cli]'; }
	touch $@

# Less than five minutes on two idle cores. Trains once; the pictures, the scores and the report are made anew each time.
demo: runs/digits/model.safetensors
	$(BIN)/diffspace sample runs/digits --class 0,1,2,3,4,5,6,7,8,9 --seeds 0-99 --columns 10 --out runs/digits/samples.png --overwrite
	$(BIN)/diffspace evaluate runs/digits

runs/digits/model.safetensors: | $(USABLE)
	$(BIN)/diffspace train digits images=150000 --out runs/digits

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# The explorer in a real browser, and what else of it is slow. Without Chromium the former are skipped, or fail with
# DIFFSPACE_BROWSER=required.
test-browser: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow tests/explorer

# Broken and malicious input to every command, each with limits of time and memory; for Linux.
test-hostile: $(INSTALLED)
	$(BIN)/python tests/hostile/hostile.py

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

# Not timed and not part of .ci/run; what runs in other processes is not counted.
coverage: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" --cov --cov-report=term --cov-report=html

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

$(DOCUMENTING): $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# Formulas need MathJax, which npm fetches once; without npm or a network they are shown as TeX, and the pages say so.
$(MATHJAX):
	mkdir -p build
	(cd build && npm pack --silent mathjax@3.2.2 && tar -xzf mathjax-3.2.2.tgz && mkdir -p mathjax-3.2.2/output/chtml mathjax-3.2.2/input/tex \
	  && cp package/es5/tex-chtml.js mathjax-3.2.2/ && cp -r package/es5/output/chtml/fonts mathjax-3.2.2/output/chtml/ \
	  && cp -r package/es5/input/tex/extensions mathjax-3.2.2/input/tex/ && rm -r package) || echo "docs: npm pack mathjax@3.2.2 failed"

# build/docs/index.html; warnings are errors.
docs: $(DOCUMENTING) $(MATHJAX)
	MATHJAX=$(CURDIR)/$(MATHJAX) OMP_NUM_THREADS=1 $(BIN)/sphinx-build -q -W --keep-going docs build/docs

# Trains the small models that examples of the gallery load; ten minutes. Running the examples is part of docs.
gallery: $(INSTALLED)
	rm -rf examples/gallery/models examples/gallery/runs
	mkdir examples/gallery/models
	(cd examples/gallery && for e in own_icons signals volumes super_resolution; do \
	  MPLBACKEND=agg $(abspath $(BIN))/python plot_$$e.py || exit 1; done && rm -r runs)
	PYTHONPATH=tests/support $(BIN)/python -c "from pathlib import Path; import diffspace as ds; import reference_pickle as r; \
	  r.write_snapshot(Path('examples/gallery/models/reference.pkl'), ds.load('examples/gallery/models/icons').denoiser)"

# The screenshots of the explorer in the documentation; needs Chromium.
screenshots: $(INSTALLED)
	$(BIN)/python docs/_ext/screenshots.py

# Those of fitted and learned solvers take a model or a file of records, and hours.
ASKING := $(addprefix benchmarks/,fewer_evaluations.py fitted_distribution.py fitted_solvers.py learned_schemes.py learned_solvers.py)

bench: $(INSTALLED)
	for b in $(filter-out $(ASKING),$(wildcard benchmarks/*.py)); do echo "# $$b"; $(BIN)/python $$b || exit 1; done

clean:
	rm -rf $(VENV) runs dist build .pytest_cache .mypy_cache .ruff_cache .coverage htmlcov
