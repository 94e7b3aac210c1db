# make quickstart   environment, install, GRPO and PaW side by side on the household (<= 10 minutes)
# make test         the tests in the same environment, but for the slow ones and those of the docs
# make test-all     every test
# make lint         ruff and pyright

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
INSTALL_FLAGS ?=
PYTEST ?= -n auto --dist worksteal
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(INSTALL_FLAGS) -c constraints.txt

.PHONY: quickstart test test-all lint clean

quickstart: $(VENV)/.installed
	$(BIN)/python examples/quickstart.py

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST)

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "slow or not slow" $(PYTEST)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[plot]"
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[dev]"
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV)
