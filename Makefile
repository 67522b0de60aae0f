# Two commands matter: `make up` runs everything, `make test` tests everything. Needs git, make and Python 3.11 or later.
# ARGS goes to the program that is run: make up ARGS="--once", make test ARGS="-k redis".

UV_VERSION := 0.13.9
PYTHON = $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do \
    if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
    then echo $$python; break; fi; done)

BIN := .venv/bin
# much of a test is waiting: a process more than there are cores
TEST_PROCESSES := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --custom-compile-command "make lock"
LOCK_SOURCES := pyproject.toml tests/server-packages.txt
# compiled once, when installed: every start of every process is twice as quick
export UV_COMPILE_BYTECODE := 1
# without a home directory, downloads are kept here
ifneq ($(shell test -n "$$HOME" && test -w "$$HOME" && echo yes),yes)
export UV_CACHE_DIR := $(CURDIR)/.venv/cache
endif

.PHONY: help up test lint lock docs secrets image clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: .venv/installed ## install and run everything; Ctrl-C stops it
	@$(BIN)/nms-workers up $(ARGS)

test: .venv/installed-dev ## install what the tests need and run them all
	@tests/debian-packages.sh
	@$(BIN)/pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/installed-dev ## style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

lock: $(BIN)/uv ## choose the newest versions that fit and pin them
	@$(COMPILE) --upgrade pyproject.toml --output-file requirements.lock
	@$(COMPILE) --upgrade $(LOCK_SOURCES) --all-extras --group dev --constraint requirements.lock --output-file requirements-dev.lock

docs: .venv/installed ## write the page of every service
	@$(BIN)/nms-workers pages docs/services

secrets: ## make the secrets of docker-compose.yml that are missing
	@deploy/secrets.sh

image: ## build the image of docker-compose.yml
	@docker build --quiet --tag nms-workers:$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
	    --build-arg REVISION=$$(git rev-parse --short HEAD) $(ARGS) .

clean: ## remove what make made, not the data
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find nms_workers tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: $(BIN)/uv requirements.lock pyproject.toml
	@echo "installing"
	@$(INSTALL) --require-hashes --requirements requirements.lock
	@$(INSTALL) --no-deps --editable .
	@touch $@

# holds everything of the other lock in the same versions
.venv/installed-dev: $(BIN)/uv requirements-dev.lock requirements.lock pyproject.toml
	@echo "installing with what the tests need"
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements-dev.lock
	@$(INSTALL) --no-deps --editable .
	@$(BIN)/uv pip check --quiet --python $(BIN)/python
	@touch $@ .venv/installed

$(BIN)/uv:
	@test -n "$(PYTHON)" || { \
	    echo "No Python 3.11 or later with venv and ensurepip was found. To have one:" >&2; \
	    echo "    Debian, Ubuntu: apt-get install python3 python3-venv     macOS: brew install python" >&2; \
	    exit 1; }
	@echo "making .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
