.DEFAULT_GOAL := help
PY := .venv/bin/python
VENV := .venv/.complete
SOURCES := core wrappers hooks dagman server_stub cli agent lab tests bench

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV): pyproject.toml bootstrap.sh
	./bootstrap.sh
	@touch $@

venv: $(VENV) ## Make .venv with all that is needed

demo: $(VENV) ## Evict a job, kill its shadow, watch it reclaim its phase (POOL=local: without HTCondor)
	@$(PY) -m htlease_lab.demo $(if $(filter local,$(POOL)),--local)

test: lint docs test-unit test-process test-pool ## Run everything CI runs

# How many tests may be skipped. Known: the profiles' table where the design folder is not beside the
# checkout; eight of a real systemd where no cgroup can be made; `shell =`, unknown to HTCondor 23.9.
UNIT_SKIPS := 1
PROCESS_SKIPS := 8
POOL_SKIPS := 1

test-unit: $(VENV) ## Rules, stores and pure code; no HTCondor
	$(PY) -m pytest -n 2 -m "not slow" --skips-at-most $(UNIT_SKIPS) tests/unit tests/contract

test-process: $(VENV) ## The built pyz, the command and a real server process
	$(PY) -m pytest -n 2 --dist loadfile -m "not slow" --skips-at-most $(PROCESS_SKIPS) tests/process

test-pool: $(VENV) ## Real HTCondor daemons (HTLEASE_POOL_SUITE=trixie or sid)
	$(PY) -m pytest -n 3 --dist loadfile -m "not slow" --skips-at-most $(POOL_SKIPS) tests/pool

test-slow: $(VENV) ## What takes too long for every change: long scenarios, long fuzzing
	$(PY) -m pytest -n 2 --dist loadfile -m slow tests

fuzz: $(VENV) ## Half an hour of hostile clients against a server, from a seed that is told
	HTLEASE_FUZZ_SECONDS=1800 HTLEASE_FUZZ_SEED=$${HTLEASE_FUZZ_SEED:-$$(date +%s)} \
		$(PY) -m pytest -s tests/process/server/test_server_hostile.py

mutants: $(VENV) ## Change what decides in small ways, and count which changes the tests notice
	.venv/bin/pip install -q --editable '.[mutants]'
	$(PY) -m tests.mutants

lint: $(VENV) ## Format, lint and type checks
	.venv/bin/ruff format --check $(SOURCES)
	.venv/bin/ruff check $(SOURCES)
	.venv/bin/mypy $(SOURCES)

ep: $(VENV) ## Build dist/htlease-ep.pyz, the one file for execution points
	$(PY) wrappers/build_pyz.py --output dist/htlease-ep.pyz

bench: $(VENV) ## Measure; prints all and writes bench/results.json
	$(PY) -m bench

bench-peers: $(VENV) ## Install etcd and PostgreSQL (Debian, as root), and measure against them
	apt-get install -qy --no-install-recommends etcd-server etcd-client postgresql
	$(PY) -m bench --only echo --only peers

diagrams: $(VENV) ## Draw the diagrams in docs/ again from the tables in the code
	.venv/bin/htlease graph --write docs/lifecycle.md

docs: $(VENV) ## Build the manual into docs/_build/html
	.venv/bin/sphinx-build -q -W -b html docs docs/_build/html

clean: ## Remove what was built (not the pool; see `htlease pool down`)
	rm -rf dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help venv demo test test-unit test-process test-pool test-slow fuzz lint ep bench bench-peers diagrams docs clean mutants
