# What a newcomer, a contributor and CI type. Only python3 with venv, and make, must be there.

PYTHON3 ?= python3
DIRECTORY ?= var
ARGS ?=
RUNS ?= 20
MINUTES ?= 12

VENV := .venv
PYTHON := $(VENV)/bin/python
COMPILE := $(PYTHON) -m piptools compile --quiet --generate-hashes --strip-extras --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links
INSTALL := $(PYTHON) -m pip install --disable-pip-version-check --require-hashes --requirement

# The command `mta` of this tree, from anywhere and through links; -P keeps the caller's directory out of it.
define COMMAND
#!/bin/sh
# `make venv` wrote this.
bin=$$(dirname "$$(readlink -f "$$0")")
exec env PYTHONPATH="$${bin%/*/*}" "$$bin/python" -P -m mta "$$@"
endef
export COMMAND

.DEFAULT_GOAL := help
.PHONY: help run venv test clients signatures lint crash bench bench-quick bench-memory bench-throttle bench-fleet bench-campaign bench-scale bench-attacks soak bench-relay lock bench-names

help:
	@echo 'make run                  serve a sandbox in ./$(DIRECTORY): no mail leaves this machine; Ctrl-C stops it'
	@echo 'make venv                 install what the daemon needs, and the command ./$(VENV)/bin/mta'
	@echo 'make test [ARGS=...]      run all tests; ARGS goes to pytest'
	@echo 'make signatures           a thousand odd messages through us and a Postfix, verified by three others; 2 minutes'
	@echo 'make clients              fetch mail clients of other languages, for tests/interop/test_clients.py; 5 minutes'
	@echo 'make lint                 check style and types'
	@echo 'make crash [RUNS=n]       kill the daemon in the middle of its work, n times twice, and keep the books'
	@echo 'make bench-relay [ARGS=]  measure against Postfix, as root: benchmarks/README.md'
	@echo 'make bench                every workload, and our floors as pass or FAIL; 12 to 15 minutes'
	@echo 'make bench-quick          has it become slower? 2 minutes'
	@echo 'make bench-memory         memory with many clients, many connections, large messages'
	@echo 'make bench-throttle       hostile sites in virtual time: is their limit found? plots; 8 minutes'
	@echo 'make bench-scale          a queue of up to a million: cost, start, latency, memory; 10 minutes'
	@echo 'make bench-attacks          hostile clients and peers: what does each cost the others? 7 minutes'
	@echo 'make bench-names          what does a new domain cost in DNS? 2 minutes'
	@echo 'make soak [MINUTES=n]     a steady load: does anything grow?'
	@echo 'make bench-fleet          seventeen servers with hidden limits, as root; MINUTES=$(MINUTES)'
	@echo 'make bench-campaign       20,000 messages to 5,000 domains, some dead or broken, beside Postfix; as root'
	@echo 'make lock                 resolve the dependencies of pyproject.toml anew'

run: venv
	@$(PYTHON) -m mta sandbox $(DIRECTORY)
	@exec $(PYTHON) -m mta --config $(DIRECTORY)/mta.yaml serve --quickstart $(DIRECTORY)/quickstart.json

venv: $(VENV)/.run $(VENV)/bin/mta

test: $(VENV)/.dev
	$(PYTHON) -m pytest -n auto $(ARGS)

clients: $(VENV)/.dev
	sh tests/interop/clients/fetch.sh $${MTA_TEST_CLIENTS:-var/clients}

signatures: $(VENV)/.dev
	MESSAGES=1000 $(PYTHON) -m pytest -q tests/interop/test_signatures.py -k uvloop

lint: $(VENV)/.dev
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

crash: $(VENV)/.dev
	$(PYTHON) -m tests.crash --runs $(RUNS) $(ARGS)

bench: $(VENV)/.run
	$(PYTHON) -m benchmarks.figures.full $(ARGS)

bench-quick: $(VENV)/.run
	$(PYTHON) -m benchmarks.figures.quick $(ARGS)

bench-memory: $(VENV)/.run
	$(PYTHON) -m benchmarks.figures.memory $(ARGS)

bench-throttle: $(VENV)/.bench
	$(PYTHON) -m benchmarks.figures.throttle $(ARGS)

bench-fleet: $(VENV)/.run
	$(PYTHON) -m benchmarks.figures.fleet --minutes $(MINUTES) $(ARGS)

bench-campaign: $(VENV)/.run
	$(PYTHON) -m benchmarks.figures.campaign $(ARGS)

bench-scale: $(VENV)/.run
	$(PYTHON) -m benchmarks.figures.scale $(ARGS)

bench-attacks: $(VENV)/.run
	$(PYTHON) -m benchmarks.figures.attacks $(ARGS)

bench-names: $(VENV)/.run
	$(PYTHON) -m benchmarks.figures.names $(ARGS)

soak: $(VENV)/.run
	$(PYTHON) -m benchmarks.figures.soak --minutes $(MINUTES) $(ARGS)

bench-relay: $(VENV)/.run
	$(PYTHON) -m benchmarks.figures.relay $(ARGS)

lock: $(VENV)/.dev
	$(PYTHON) -m pip install --quiet pip-tools
	$(COMPILE) --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) --extra bench --constraint requirements.lock --output-file requirements-bench.lock pyproject.toml

# A stamp tells what is installed; a lock that changed is installed again.
$(VENV)/.run: requirements.lock | $(PYTHON)
	@echo "Installing what $< lists in $(VENV): a minute, and only once"
	$(INSTALL) $<
	@touch $@

$(VENV)/.dev: requirements-dev.lock | $(PYTHON)
	@echo "Installing what $< lists in $(VENV): a minute, and only once"
	$(INSTALL) $<
	@touch $@ $(VENV)/.run

$(VENV)/.bench: requirements-bench.lock | $(PYTHON)
	@echo "Installing what $< lists in $(VENV): a minute, and only once"
	$(INSTALL) $<
	@touch $@ $(VENV)/.run

$(VENV)/bin/mta: Makefile | $(PYTHON)
	@printf '%s\n' "$$COMMAND" >$@ && chmod 755 $@

$(PYTHON):
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON3=...")'
	@echo "Making $(VENV)"
	$(PYTHON3) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
