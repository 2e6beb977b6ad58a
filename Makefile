# Short names for what a developer types often. Everything else: ./countinghouse --help

PYTHON = .venv/bin/python

.PHONY: help up down test lint types format lock

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

up: ## start everything with sample data; Ctrl-C stops it
	./countinghouse up --demo

down: ## stop everything
	./countinghouse down

test: ## linters and all tests, as CI runs them
	.ci/run

lint: ## ruff and import-linter
	$(PYTHON) -m ruff check .
	.venv/bin/lint-imports

types: ## mypy --strict
	$(PYTHON) -m mypy

format: ## ruff format
	$(PYTHON) -m ruff format .

lock: ## pin requirements/*.in with hashes (needs uv)
	uv pip compile --generate-hashes --universal --python-version 3.11 -o requirements/runtime.txt requirements/runtime.in
	uv pip compile --generate-hashes --universal --python-version 3.11 -o requirements/test.txt requirements/test.in
