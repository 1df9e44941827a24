# make demo      everything once, on generated scenes (minutes)
# make test      linters, types, walls between rooms, tests
# make test-old-cpu   the tests as a processor without AVX512 and AMX runs them
# make docs      the site, with warnings as errors, and the examples in docstrings
# make web       fetches what web pages carry (installing does, where npm's registry is reached)
# make lint-web  linter and types of the page's own code; needs Node and npm
# make size      lines of code of each room
# make install   .venv with everything both need; done once, again only when what is needed changes

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BOOTSTRAP := $(VENV)-uv
DEMO_OUT ?= runs/demo

# What is compiled of the libraries is kept: tests start many programs.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-old-cpu docs survival size install lint web lint-web clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(BIN)/segshrink demo --out $(DEMO_OUT)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# PyTorch's own kernels, and oneDNN's below PyTorch and OpenVINO, as on a server of 2017.
test-old-cpu: $(STAMP)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX512_CORE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

web: $(STAMP)
	$(BIN)/python tools/web/bundle.py

lint-web: tools/web/node_modules/.package-lock.json
	cd tools/web && npm run --silent types
	tools/web/node_modules/.bin/eslint --config tools/web/eslint.config.js --max-warnings 0 src/segshrink/export/web

tools/web/node_modules/.package-lock.json: tools/web/package-lock.json
	cd tools/web && npm ci --silent --ignore-scripts
	touch $@

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir build/site
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --doctest-modules src/segshrink tests/training/test_lightning_page.py

survival: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/survival.py

size:
	@python3 tools/size.py

install: $(STAMP)

clean:
	rm -rf $(VENV) $(BOOTSTRAP) build

# PYTHON=/path/to/python chooses the Python; UV=/path/to/uv the uv.
$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	python=; \
	for candidate in "$(PYTHON)" $(BIN)/python python3.11 python3.12 python3.13 python3 python python3.14; do \
	  if [ -n "$$candidate" ] && "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python=$$("$$candidate" -c 'import sys; print(sys.executable)'); break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "error: no Python >= 3.11 found; install one, or name it: make install PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	uv=; \
	for candidate in "$(UV)" uv $(BOOTSTRAP)/bin/uv; do \
	  if [ -n "$$candidate" ] && "$$candidate" --version >/dev/null 2>&1; then uv=$$candidate; break; fi; \
	done; \
	if [ -z "$$uv" ]; then \
	  echo "fetching uv with pip"; \
	  "$$python" -m pip install --quiet --disable-pip-version-check --target $(BOOTSTRAP) uv \
	    || { "$$python" -m venv $(BOOTSTRAP) && $(BOOTSTRAP)/bin/python -m pip install --quiet uv; } \
	    || { echo "error: can't fetch uv with $$python; install pip (or uv), and check the network" >&2; exit 1; }; \
	  uv=$(BOOTSTRAP)/bin/uv; \
	fi; \
	[ -x $(BIN)/python ] && $(BIN)/python -c '' 2>/dev/null || "$$uv" venv --quiet --clear --python "$$python" $(VENV); \
	"$$uv" pip install --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	touch $(STAMP)
