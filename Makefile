# The Finetuning Workbook. `make lab` to learn, `make test` to check everything; `make help` lists the rest.
#
# Everything is installed into .venv of this folder. Python 3.11 (3.11.5 or later) or 3.12 is looked for;
# `make lab PYTHON=/path/to/python3.12` chooses one. `make lab LAB_FLAGS="--ip=0.0.0.0 --port=8899"` passes
# flags to JupyterLab.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
N ?=
LAB_FLAGS ?=

# A given PYTHON decides alone. `make gpu-test` uses it as it is: a GPU machine has its own torch.
ifeq ($(origin PYTHON),file)
CANDIDATES := python3.11 python3.12 $(PYTHON)
GPU_PY := $(PY)
GPU_SETUP := setup
else
CANDIDATES := $(PYTHON)
GPU_PY := $(PYTHON)
GPU_SETUP :=
endif

# JupyterLab refuses to run as root unless told, and must not open a browser where none can show.
LAB_DEFAULTS := --ip=127.0.0.1 --log-level=WARN --ServerApp.root_dir=. \
	--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb \
	--LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate
ifeq ($(shell id -u),0)
LAB_DEFAULTS += --allow-root
endif
ifeq ($(shell uname)$(DISPLAY)$(WAYLAND_DISPLAY),Linux)
LAB_DEFAULTS += --no-browser
endif

# It takes no flag twice, so one that LAB_FLAGS names replaces the default.
flag_name = $(patsubst --ServerApp.ip,--ip,$(firstword $(subst =, ,$(1))))
given := $(foreach flag,$(LAB_FLAGS),$(call flag_name,$(flag)))
LAB = $(foreach flag,$(LAB_DEFAULTS),$(if $(filter $(call flag_name,$(flag)),$(given)),,$(flag))) $(LAB_FLAGS)

.PHONY: help lab lesson test quick build browser-test gpu-test clean lock setup

help:
	@echo "make lab           set up what is missing and open JupyterLab on lesson 00"
	@echo "make lesson N=00   run a lesson without a browser and say what it cost"
	@echo "make test          set up what is missing and run everything that CI runs"
	@echo "make quick         the fast part of the tests"
	@echo "make build         make the notebooks from solutions/*.py"
	@echo "make browser-test  every lesson in JupyterLab, on the CPU profile (LABKIT_SCREENSHOTS=FOLDER: pictures)"
	@echo "make gpu-test      the tests and notebooks that want a GPU (PYTHON=python3: without .venv)"
	@echo "make lock          renew constraints.txt from requirements.txt (Python 3.11)"
	@echo "make clean         remove .venv and caches (the base model stays)"

lab: setup
	@echo "== JupyterLab: open the URL below; Ctrl-C stops it"
	@exec $(PY) -m jupyterlab $(LAB)

lesson: setup
	@test -n "$(N)" || { echo "Which lesson? For example: make lesson N=00" >&2; exit 2; }
	@$(PY) -m labkit lesson $(N)

build: setup
	@$(PY) -m labkit build

# ---- set-up ----------------------------------------------------------------------------------

setup: $(READY)
	@$(PY) -m labkit fetch

# The stamp is written last, so that a failed or interrupted set-up is taken up again.
$(READY): requirements.txt constraints.txt pyproject.toml
	@if ! $(PY) -c $(SUITABLE) 2>/dev/null; then $(CREATE); fi
	@echo "== installing the pinned packages into $(VENV): several minutes the first time"
	@$(PY) -m pip --disable-pip-version-check install -r requirements.txt -c constraints.txt
	@$(PY) -m pip --disable-pip-version-check install --quiet --no-build-isolation --no-deps -e .
	@IPYTHONDIR=$(VENV)/ipython $(PY) -m ipykernel install --sys-prefix --display-name "Python 3" >/dev/null
	@touch $@

# Asked by running it: version managers put commands on the PATH that exist and do not run.
# 3.11.5: the locked soupsieve, which nbconvert needs, does not install on an earlier 3.11.
SUPPORTED := 'import sys; sys.exit(not (3, 11, 5) <= sys.version_info[:3] < (3, 13))'
SUITABLE := 'import sys, pip; sys.exit(not (3, 11, 5) <= sys.version_info[:3] < (3, 13))'
VERSION := 'import platform, sys; sys.stdout.write(" " + platform.python_version())'

define CREATE
	chosen=; bare=; found=; \
	for name in $(CANDIDATES); do \
		found="$$found$$("$$name" -c $(VERSION) 2>/dev/null)"; \
		if "$$name" -c $(SUPPORTED) >/dev/null 2>&1; then \
			if "$$name" -c 'import venv, ensurepip' >/dev/null 2>&1; then chosen=$$name; break; fi; \
			bare=$${bare:-$$name}; \
		fi; \
	done; \
	if [ -z "$$chosen" ] && [ -n "$$bare" ]; then \
		echo "$$bare has no venv module (Debian and Ubuntu package it apart)." >&2; \
		echo "Run: sudo apt-get install python3-venv    (or the python3.X-venv of your version)" >&2; exit 1; \
	elif [ -z "$$chosen" ]; then \
		echo "Python 3.11 or 3.12 is needed, of 3.11 at least 3.11.5, and none of these is one:" \
			"$(CANDIDATES)." >&2; \
		if [ -n "$$found" ]; then echo "Found:$$found. (Debian 12 brings 3.11.2.)" >&2; fi; \
		echo "Install one (uv, pyenv and conda have newer ones than the system), or name it:" \
			"make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "== creating $(VENV) with $$chosen ($$("$$chosen" --version))"; \
	rm -rf $(VENV) && "$$chosen" -m venv $(VENV)
endef

lock:
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && python3.11 -m venv "$$folder" && \
	"$$folder/bin/pip" --disable-pip-version-check install -r requirements.txt && { \
		echo "# Every package beneath requirements.txt, locked. Made by 'make lock' on Python 3.11: a clean"; \
		echo "# environment, 'pip install -r requirements.txt', 'pip freeze' without local suffixes such as"; \
		echo "# +cpu. The CUDA libraries of a GPU build of torch are not here: torch pins them itself."; \
		"$$folder/bin/pip" freeze | grep -vE '^(nvidia-|cuda-|triton=)' | sed 's/+.*//' | LC_ALL=C sort -f; \
	} > "$$folder/constraints.txt" && cp "$$folder/constraints.txt" constraints.txt
	@echo "wrote constraints.txt"

# ---- checks ----------------------------------------------------------------------------------

test quick browser-test gpu-test: export HF_HUB_OFFLINE := 1

# $(call step,NAME,COMMAND): run, say the seconds; the first step that fails ends make.
step = @echo "== $(1)"; start=$$SECONDS; $(2) || { echo "== $(1): FAILED" >&2; exit 1; }; \
	echo "== $(1): $$((SECONDS - start)) s"
nbval = $(1) -m pytest -q $$($(1) -c "from labkit.nbval_plugin import FLAGS; print(*FLAGS)")

# Two at a time with one thread each: half of the tests wait for a kernel or a browser, and much of a lesson
# runs on one core anyway. A notebook stays with one of the two.
pytest = OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist worksteal
lessons = OMP_NUM_THREADS=1 $(call nbval,$(PY)) -n 2 --dist loadfile

test: setup
	$(call step,ruff,$(PY) -m ruff check .)
	$(call step,tests,$(pytest) tests)
	$(call step,notebooks up to date,$(PY) -m labkit build --check)
	$(call step,solution notebooks,LABKIT_PROFILE=cpu $(lessons) solutions/*.ipynb)
	$(call step,learner notebooks,LABKIT_PROFILE=smoke $(lessons) notebooks/*.ipynb)

quick: setup
	$(call step,ruff,$(PY) -m ruff check .)
	$(call step,tests,$(pytest) -m "not slow" tests)
	$(call step,notebooks up to date,$(PY) -m labkit build --check)

# One lesson after the other: each may use all cores. CI's `make test` takes two of them, on the profile smoke.
browser-test: export LABKIT_REQUIRE_TOOLS := 1
browser-test: export LABKIT_BROWSER_LESSONS := all
browser-test: setup
	$(call step,lessons in a browser,LABKIT_PROFILE=$${LABKIT_PROFILE:-cpu} $(PY) -m pytest -q -rf \
		tests/test_lessons_in_browser.py tests/test_jupyterlab.py)

gpu-test: $(GPU_SETUP)
	@$(GPU_PY) -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "torch sees no CUDA card")'
	@$(GPU_PY) -m labkit fetch
	$(call step,GPU tests,$(GPU_PY) -m pytest -q -m gpu tests)
	$(call step,solution notebooks,LABKIT_PROFILE=gpu $(call nbval,$(GPU_PY)) solutions/*.ipynb)
	$(call step,learner notebooks,LABKIT_PROFILE=gpu $(call nbval,$(GPU_PY)) notebooks/*.ipynb)

clean:
	rm -rf $(VENV) labkit.egg-info .pytest_cache .ruff_cache
	find labkit tests notebooks solutions \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
	@echo "the base model stays in its cache: $${LABKIT_CACHE:-$${XDG_CACHE_HOME:-~/.cache}/labkit}"
