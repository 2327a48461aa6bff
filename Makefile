# Each task sets up the virtual environment .venv by itself; nothing outside this folder is changed.
#
#   make run               the main job on made-up patients: standard against mixed supervision, a table and a report
#   make run DATA=folder   the same on patients of your own
#   make test              all tests
#   make bench             how fast this machine is beside MONAI and nibabel: a table in data/results
#   make lab               JupyterLab with the notebooks
#   make notebooks         execute all notebooks again, in place; one: make notebooks BOOKS=notebooks/03_losses.ipynb
#   make site              the executed notebooks and guides as pages that open from disk: build/site/index.html
#   make grid SCENARIO=smoke   the runs of an experiment (a file, or the name of one in scenarios/) that have not finished, and
#                          their table; DRY=1 shows the plan, PROFILE=workflow/slurm is for a cluster; docs/grid.md says more
#   make soak              prepare, training and a grid, killed at random moments and continued to the same bytes
#   make audit             known faults of the installed packages
#   make workshop-bundle   one archive for a room without internet: repository, packages, phantom, runs, site
#
# Settings: PYTHON=python3.12 (3.11 to 3.13), TORCH=cpu|cuda (chosen by itself: cuda where nvidia-smi is found).

# glibc keeps up to 1 GiB of freed memory instead of asking the system for it again: preparing and training are faster.
export MALLOC_MMAP_MAX_ = 0
export MALLOC_TRIM_THRESHOLD_ = 1073741824

PYTHON ?= python3
TORCH ?= $(if $(shell command -v nvidia-smi 2>/dev/null),cuda,cpu)
DATA =
SCENARIO =
BOOKS = $(sort $(wildcard notebooks/[0-9]*.ipynb))

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed-$(TORCH)
TORCH_PIN := $(shell sed -n 's/^torch==//p' constraints.txt)

SITE_STAMP := $(VENV)/.site-tools
# Snakemake wants packaging < 26 and nilearn packaging >= 26: it gets an environment of its own inside $(VENV).
WORKFLOW := $(VENV)/workflow
WORKFLOW_STAMP := $(VENV)/.workflow-tools
AUDIT_PIN := $(shell sed -n 's/^audit = \["\(.*\)"\]/\1/p' pyproject.toml)
WORKFLOW_PINS := $(shell sed -n 's/^workflow = \[\(.*\)\]/\1/p' pyproject.toml | tr -d ,)

.PHONY: run test bench soak lab notebooks site grid slurm-trial workshop-bundle audit
.DEFAULT_GOAL := run

run: $(STAMP)
	@$(BIN)/python -m mixsup_lib compare $(if $(DATA),--data "$(DATA)")

test: $(STAMP) $(if $(CI),$(SITE_STAMP) $(WORKFLOW_STAMP))
	@$(BIN)/python -m pytest tests -n logical --maxprocesses 4 --dist loadgroup --durations 5

soak: $(STAMP)
	@$(BIN)/python workflow/soak.py

bench: $(STAMP)
	@$(BIN)/python workflow/bench.py $(if $(ROWS),--rows $(ROWS))

lab: $(STAMP)
	@$(BIN)/jupyter lab notebooks

notebooks: $(STAMP)
	@set -e; for book in $(BOOKS); do \
	  echo "executing $$book"; executed="notebooks/.executed-$${book##*/}"; \
	  $(BIN)/papermill --no-progress-bar --log-level WARNING --kernel python3 --cwd notebooks "$$book" "$$executed"; \
	  mv "$$executed" "$$book"; \
	done

site: $(SITE_STAMP)
	@$(BIN)/python workflow/make_site.py

# OPTIONS: further ones of `python -m mixsup_lib compare --help`.
GRID = $(SCENARIO) $(if $(COHORT),--data "$(COHORT)") $(if $(DRY),--dry-run) $(OPTIONS)

grid: $(STAMP) $(if $(PROFILE),$(WORKFLOW_STAMP))
	@$(BIN)/python $(if $(PROFILE),workflow/grid.py "$(PROFILE)",-m mixsup_lib compare) $(strip $(GRID))

slurm-trial: $(STAMP) $(WORKFLOW_STAMP)
	@$(BIN)/python workflow/slurm_trial.py

# Known faults of the installed packages; asks PyPI for them, from an environment of its own.
audit: $(STAMP)
	@$(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip --quiet --quiet --disable-pip-version-check install $(AUDIT_PIN)
	@$(BIN)/python -m pip --disable-pip-version-check freeze --exclude-editable > $(VENV)/audit/installed.txt
	@$(VENV)/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement $(VENV)/audit/installed.txt

workshop-bundle: $(STAMP)
	@$(BIN)/python workflow/bundle.py

# The CPU build of torch carries a version of its own (+cpu). Where pip does not find it, uv knows where PyTorch keeps it.
install-cpu = echo "torch $(TORCH_PIN) for the CPU (about 200 MB)"; \
  [ "$$(uname)" = Darwin ] || $(PIP) install "torch==$(TORCH_PIN)+cpu" 2>/dev/null || \
  { $(PIP) install uv && $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend=cpu "torch==$(TORCH_PIN)"; } || \
  echo "The CPU build could not be found; pip now takes its default build, on Linux one for CUDA (several GB)."; \
  $(PIP) install "torch==$(TORCH_PIN)"
install-cuda = echo "torch $(TORCH_PIN) for CUDA (several GB)"; $(PIP) install "torch==$(TORCH_PIN)"

$(STAMP): pyproject.toml constraints.txt
	@case "$(TORCH)" in cpu|cuda) ;; *) echo "TORCH is '$(TORCH)'; choose TORCH=cpu or TORCH=cuda."; exit 2;; esac
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); name another one: make PYTHON=python3.12"; exit 2; }
	@echo "Setting up $(VENV) (once, a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@for other in $(filter-out $(STAMP),$(wildcard $(VENV)/.installed-*)); do $(PIP) uninstall --yes torch; rm -f $$other; done
	@set -e; $(install-$(TORCH))
	@echo "the library, Jupyter and the test tools"
	@$(PIP) install --constraint constraints.txt --editable ".[test]"
	@touch $@

$(SITE_STAMP): $(STAMP)
	@echo "the tools for the site"
	@$(PIP) install --constraint constraints.txt --editable ".[site]"
	@touch $@

$(WORKFLOW_STAMP): $(STAMP)
	@echo "Snakemake, in $(WORKFLOW)"
	@$(PYTHON) -m venv $(WORKFLOW)
	@$(WORKFLOW)/bin/python -m pip --quiet --quiet --disable-pip-version-check install $(WORKFLOW_PINS)
	@touch $@
