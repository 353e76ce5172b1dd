# Everything a fresh machine needs is Python 3.11 or later and make: each target first makes the
# virtual environment it runs in. `make demo` and `make test` are the two commands to know.
#
#   make demo         the main job: an index of Python's own standard library, checked
#   make test         the whole test suite, in three lanes (`pytest` runs it in one)
#   make test-quick   without the tests marked slow
#   make test-other   what may differ between Pythons (PYTHON=python3.13 VENV=/some/where)
#   make lint fmt     ruff, mypy, import-linter / rewrite in place
#   make stress       minutes of seeded trouble     (SEED=7 MINUTES=3)
#   make chaos        a cluster that is being broken (SEED=7 MINUTES=3)
#   make replays      real runs recorded, and replayed by other processes and Pythons
#                     (RUNS=20 STEPS=1000000 PYTHONS="/path/to/python ...")
#   make bench        the table of speeds           (BENCH="--peers all --repeat 5")
#   make swarm        made-up clusters with faults  (SEEDS=10000 PROFILE=medium)
#   make sim-bench    the speeds of the simulator
#   make clean        remove what the others made, the environment included
#
# PYTHON=python3.12 and VENV=/some/where choose another interpreter and place.

PYTHON ?= python3
VENV ?= .venv
SEED ?= 1
MINUTES ?= 2
BENCH ?= --peers all
SEEDS ?= 2000
RUNS ?= 20
STEPS ?= 1000000
PYTHONS ?=
PROFILE ?= small

python := $(VENV)/bin/python
pip := $(python) -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-quick test-other lint fmt stress chaos replays bench swarm sim-bench wheel clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready-demo
	$(python) -m detray.demo $(DEMO)

test: $(VENV)/.ready-dev
	$(python) -m tests $(TESTS)

test-quick: $(VENV)/.ready-test
	$(python) -m tests -m "not slow" $(TESTS)

test-other: $(VENV)/.ready-test
	$(python) -m tests --portable

lint: $(VENV)/.ready-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

fmt: $(VENV)/.ready-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

stress: $(VENV)/.ready-dev
	$(python) -m tests.stress --seed $(SEED) --minutes $(MINUTES)

chaos: $(VENV)/.ready-dev
	$(python) -m tests.chaos --seed $(SEED) --minutes $(MINUTES)

replays: $(VENV)/.ready-dev
	$(python) -m tests.replays --runs $(RUNS) --steps $(STEPS) --seed $(SEED) \
		$(foreach other,$(python) $(PYTHONS),--python $(other))

bench: $(VENV)/.ready-dev
	$(python) -m detray.bench $(BENCH)

swarm: $(VENV)/.ready-dev
	$(VENV)/bin/detray-sim swarm --seeds $(SEEDS) --profile $(PROFILE)

sim-bench: $(VENV)/.ready-dev
	$(python) -m detray_sim.bench.steps
	$(python) -m detray_sim.bench.worlds
	$(python) -m detray_sim.bench.network
	$(python) -m detray_sim.bench.experiments

wheel: $(VENV)/.ready-dev
	$(pip) wheel --no-deps --wheel-dir dist .

$(VENV)/.ready:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "detray needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	            "Name another one: make PYTHON=python3.12"; exit 1; }
	@test -x $(python) || $(PYTHON) -m venv $(VENV) \
	  || { echo "$(PYTHON) cannot make virtual environments (on Debian: install python3-venv)."; exit 1; }
	@touch $@

$(VENV)/.ready-demo: pyproject.toml | $(VENV)/.ready
	$(pip) install --editable '.[graph,cli]'
	@touch $@

$(VENV)/.ready-test: pyproject.toml | $(VENV)/.ready
	$(pip) install --editable '.[test]'
	@touch $@ $(VENV)/.ready-demo

$(VENV)/.ready-dev: pyproject.toml | $(VENV)/.ready
	$(pip) install --editable '.[dev]'
	@touch $@ $(VENV)/.ready-demo $(VENV)/.ready-test

clean:
	rm -rf $(VENV) build dist demo-out *.egg-info .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis
	find detray sim tests docs -name __pycache__ -type d -prune -exec rm -rf {} +
