# Everything a fresh machine needs, from Python 3.11, pip and make alone.
#
#   make demo    the whole path on built-in phantoms; the report lands in runs/demo/report/
#   make test    the whole test suite, slow tests included, in three processes side by side
#   make lint    style and formatting, as the continuous integration checks them
#   make clean   removes the environment and the caches; runs/ stays
#
# Another interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
PIP := pip --disable-pip-version-check install --progress-bar off -c constraints.txt -e ".[dev]"
# of pip's output: what is large, what takes long, what is wrong (errors go to stderr)
SHOW := sed -un -e 's|^ *Downloading \([^ ]*/\)*\([^ ]*\) (\([0-9]\{3\}.* MB\|.* GB\)).*|  downloading \2 (\3)|p' \
	-e 's|^Installing collected packages.*|  unpacking (a minute or two) ...|p'
SHELL := bash
.SHELLFLAGS := -o pipefail -c

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(VENV)/bin/gemix demo --workdir runs/demo --overwrite

# Three for two cores, since jobs wait for Ray's processes much of the time. The order is that of
# tests/conftest.py; xdist's own begins with the files of most tests, which are not the longest.
test: $(INSTALLED)
	$(VENV)/bin/pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 20

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache
	find gemix jobs tune tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an installation that was cut short is done again. Some systems ship
# Python without ensurepip; there the environment is made without pip, and theirs fills it.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "gemix needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	    "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test ! -L $(VENV) || { echo "$(VENV) is a link, and what it leads to would be replaced;" \
	    "remove it, or name another: make $(MAKECMDGOALS) VENV=venv" >&2; exit 1; }
	@echo "Installing into $(VENV), once: 3 to 10 minutes, some 7 GB with PyTorch's GPU libraries ..."
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@if [ -x $(VENV)/bin/pip ]; then $(VENV)/bin/python -m $(PIP) | $(SHOW); \
	else $(PYTHON) -m pip --python $(VENV)/bin/python $(subst pip --disable,--disable,$(PIP)) | $(SHOW); fi
	@echo "Installed."
	@touch $@
