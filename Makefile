# Every target installs the environment that it needs, if that is missing or its definition has changed.
PYTHON ?= python3
EXTRA ?= cpu
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(EXTRA)
# the environment of `make check`, without torch and vLLM
CHECK := .venv-check
# what `demo` and `up` tune: tiny-base, which is pretrained here, or smollm2, a real one of 135 million parameters
BASE := tiny-base
TINY := .cache/tiny-base
WORKERS ?= 2
# of `make wiring`, whose tests wait more than they compute; at most 4 (tests/support/embedded.py)
WAITING ?= 3
# histories of the stage protocol that `make sim` simulates
SEEDS ?= 2000
# of `make chaos`: how many faults, the seed that they are drawn from, and the seconds between two of them
N ?= 20
SEED ?=
EVERY ?= 5
CHAOS = $(BIN)/python -m tests.chaos --faults $(N) --every $(EVERY) $(if $(SEED),--seed $(SEED))
# the model that the environment or .env names; without one, the full stack uses the tiny base, mounted below /models
NAMED_BASE := $(or $(TUNESTREAM_MODEL__ID),$(shell grep -s '^TUNESTREAM_MODEL__ID=' .env))
FULL := $(if $(NAMED_BASE),,MODELS=./.cache TUNESTREAM_MODEL__ID=tiny-base TUNESTREAM_MODEL__PATH=/models/tiny-base) docker compose

# where the passwords and certificates of the full stack are; docker-compose.yml reads it, too
SECRETS ?= deploy/secrets

PIN := $(BIN)/uv pip compile --quiet --no-emit-index-url --no-annotate --no-header --python-version 3.11

$(if $(filter tiny-base smollm2,$(BASE)),,$(error BASE is "$(BASE)", but must be tiny-base or smollm2; TUNESTREAM_MODEL__ID names other bases))

.DEFAULT_GOAL := help
.PHONY: help install docs demo up down full full-down secrets check test test-full lint unit sim wiring e2e prove-clocks prove-features prove-full prove-fuzz prove-mining prove-outages prove-storage prove-sweep prove-synthesis prove-uploads clients prove-clients chaos chaos-full constraints clean pages

help: ## Show this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Set up .venv (EXTRA=gpu on a machine with an NVIDIA GPU)

# $(call environment,FOLDER,CONSTRAINTS,EXTRAS): this project, editable, in a virtual environment
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(1)/bin/uv pip install --python $(1)/bin/python --constraint $(2) --editable '.[$(3)]'
endef

comma := ,
space := $(subst ,, )

$(INSTALLED): pyproject.toml constraints-$(EXTRA).txt
	$(call environment,$(VENV),constraints-$(EXTRA).txt,$(EXTRA)$(comma)dev)
	@touch $@

$(CHECK)/.installed: pyproject.toml constraints-cpu.txt
	$(call environment,$(CHECK),constraints-cpu.txt,check)
	@touch $@

$(TINY)/config.json: examples/tiny_base.py | $(INSTALLED)
	$(BIN)/python -m examples.tiny_base $(@D)

.cache/smollm2/config.json: examples/smollm2.py | $(INSTALLED)
	$(BIN)/python -m examples.smollm2 $(@D)

demo: install .cache/$(BASE)/config.json ## The whole pipeline: drop a dataset, train, evaluate, deploy, ask the tuned model (or BASE=smollm2)
	$(BIN)/python -m examples.demo --base .cache/$(BASE)

# BASE on the command line goes before a model of the environment
NAMED_FOR_UP := $(if $(filter command line,$(origin BASE)),,$(TUNESTREAM_MODEL__ID))

up: install $(if $(NAMED_FOR_UP),,.cache/$(BASE)/config.json) ## Start the stack in the background, on the tiny base unless BASE or TUNESTREAM_MODEL__ID is set
	$(BIN)/tunestream up --detach $(if $(NAMED_FOR_UP),,--base .cache/$(BASE))

down: install ## Stop the stack and all its processes
	$(BIN)/tunestream down

secrets: ## Make passwords and certificates of the full stack in SECRETS (deploy/secrets); existing files are kept
	@python3 deploy/make_secrets.py --folder $(SECRETS)

.env:
	cp .env.example .env

full: .env secrets $(if $(NAMED_BASE),,$(TINY)/config.json) ## Start the full stack in Docker Compose, on the tiny base unless a model is set
	$(FULL) up --build --detach --wait
	@$(FULL) ps --format 'table {{.Service}}\t{{.Status}}\t{{.Ports}}'
	@echo
	@echo "OpenAI API  http://127.0.0.1:$${INFERENCE_PORT:-8000}/v1"
	@echo "jobs        http://127.0.0.1:$${API_PORT:-8080}/jobs"
	@echo "S3          https://127.0.0.1:$${S3_PORT:-9000}  (drop datasets into the bucket datasets)"
	@echo "Kafka       127.0.0.1:$${KAFKA_PORT:-9094}"
	@echo "Jaeger      http://127.0.0.1:$${JAEGER_PORT:-16686}"
	@echo "shell       source $(SECRETS)/client.env"

full-down: ## Stop the full stack; volumes with data are kept, unless VOLUMES=--volumes
	$(FULL) --profile cpu --profile gpu --profile observability down $(VOLUMES)

check: $(CHECK)/.installed ## Style, types, import rules and unit tests without torch and vLLM (.venv-check)
	$(call lint,$(CHECK)/bin)
	$(CHECK)/bin/pytest tests/unit tests/contract -n $(WORKERS)

test: lint unit sim wiring e2e ## Everything that needs no Docker, fast tests first

test-full: install $(TINY)/config.json ## The full stack, started for the tests and removed after them: end to end, rights, outages
	$(BIN)/pytest tests/full -m 'not proof' --durations=12

# $(call lint,BIN)
define lint
	$(1)/ruff check .
	$(1)/ruff format --check .
	$(1)/mypy
	$(1)/lint-imports
endef

lint: install ## Style, types, import rules
	$(call lint,$(BIN))

# only the files that name a mark are imported, which are a tenth
NAMES_A_MARK = $(shell grep -rlE "mark\.($(subst $(space)or$(space),|,$(MARKED)))" tests/unit tests/contract --include='test_*.py')

unit: install $(TINY)/config.json ## Unit tests (MARKED=torch: those that need torch)
	$(BIN)/pytest $(if $(MARKED),$(NAMES_A_MARK) -m '$(MARKED)',tests/unit tests/contract) -n $(WORKERS)

sim: install ## The stage protocol under seeded histories of failure (SEEDS=2000), and its mutants, which must be caught
	TUNESTREAM_SIM_SEEDS=$(SEEDS) $(BIN)/pytest tests/sim -n $(WORKERS)

wiring: install ## Bus, store and services on the real broker and S3 server
	$(BIN)/pytest tests/wiring -n $(WAITING) --dist loadfile

e2e: install $(TINY)/config.json ## The whole stack with the real vLLM, killed and restarted
	$(BIN)/pytest tests/e2e -m 'not proof' --durations=8

prove-outages: install $(TINY)/config.json ## Every process killed in one job, vLLM after it; Kafka, the store and vLLM away for two minutes each
	TUNESTREAM_OUTAGE_SECONDS=120 $(BIN)/pytest tests/e2e/test_1_main_line.py tests/e2e/test_3_kills.py tests/e2e/test_7_outages.py --durations=8

prove-features: install $(TINY)/config.json ## Tool calls, thoughts, a help-desk export and a search of two trials, each trained and asked on the real vLLM (ten minutes)
	$(BIN)/pytest tests/e2e/test_4_thinking.py tests/e2e/test_5_tickets.py tests/e2e/test_5_tools.py tests/e2e/test_9_sweep.py --durations=8

prove-full: install $(TINY)/config.json ## The full stack: the outages of make test-full, Kafka away or its disk lost, a trainer stopped and vLLM killed in a job
	$(BIN)/pytest tests/full/test_4_outages.py --durations=8

prove-clocks: install $(TINY)/config.json ## Trainers and validators whose clocks are a minute apart, and one that is set back an hour
	$(BIN)/pytest tests/e2e/test_8_clocks.py

prove-fuzz: install $(TINY)/config.json ## Two thousand hostile events, drops and requests beside a user's jobs
	TUNESTREAM_FUZZ_ITEMS=2000 $(BIN)/pytest -s tests/e2e/test_6_fuzz.py

prove-storage: install $(TINY)/config.json ## 50 jobs with retention on: what is stored, against the policy's own sum (half an hour)
	$(BIN)/pytest -s tests/proofs/test_storage.py

prove-sweep: install $(TINY)/config.json ## A search of 8 trials whose trainer is killed twice: the best one is deployed (ten minutes)
	$(BIN)/pytest -s tests/proofs/test_sweep.py

prove-synthesis: install $(TINY)/config.json ## 200 rows by a real vLLM, killed half-way: what it was asked for, by its own counters
	$(BIN)/pytest -s tests/proofs/test_synthesis.py

prove-uploads: install ## 2 GB through the Uploads API: the memory of the api service
	$(BIN)/python -m benchmarks.http.uploads --gb 2

prove-mining: install ## 2 GB of gzipped JSON lines, and of a table of scattered conversations: the memory of the process that reads them
	$(BIN)/pytest -s tests/proofs/test_mining.py

clients: install $(TINY)/config.json ## The official OpenAI clients, old and new, Python and Node, drive a running stack
	$(BIN)/pytest -s tests/clients

prove-clients: install $(TINY)/config.json ## The same sync and async, with all versions of the Python client between them
	TUNESTREAM_CLIENTS=all $(BIN)/pytest -s tests/clients

pages: install ## The pages of reports in a real browser, a headless Chrome from npm
	$(BIN)/pytest tests/pages

chaos: install $(TINY)/config.json ## Faults of every kind while the embedded stack works (N=20 SEED=…), and whether anything was lost or doubled
	$(CHAOS)

chaos-full: install $(TINY)/config.json ## The same on the full stack, in Docker Compose
	$(CHAOS) --full

families: install ## Which kinds of conversation can be trained on which chat template, asked of vLLM's render server
	$(BIN)/python -m tests.families
	$(BIN)/python -m tests.families.parsers

docs: install ## Generate docs/schemas, docs/asyncapi.json, docs/openapi and the tables of docs from the code
	$(BIN)/python -m docs.generate

constraints: install ## Write the pinned versions of all packages again (constraints-*.txt)
	$(PIN) --universal --extra cpu --extra dev pyproject.toml --output-file constraints-cpu.txt
	$(PIN) --python-platform x86_64-manylinux_2_28 --extra gpu --extra dev pyproject.toml --output-file constraints-gpu.txt

clean: ## Delete everything but the sources (the bases stay in .cache)
	rm -rf $(VENV) $(CHECK) .tunestream .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
