# Each task sets up the virtual environment .venv by itself; nothing outside this folder is changed.
#
#   make run               the main job on made-up patients: standard against mixed supervision, a table and a report
#   make run DATA=folder   the same on patients of your own
#   make test              all tests
#   make lab               JupyterLab with the notebooks
#   make notebooks         execute all notebooks again, in place
#
# Settings: PYTHON=python3.12 (3.11 to 3.13), TORCH=cpu|cuda (chosen by itself: cuda where nvidia-smi is found).

PYTHON ?= python3
TORCH ?= $(if $(shell command -v nvidia-smi 2>/dev/null),cuda,cpu)
DATA =

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed-$(TORCH)
TORCH_PIN := $(shell sed -n 's/.*"torch==\([^"]*\)".*/\1/p' pyproject.toml)

.PHONY: run test lab notebooks
.DEFAULT_GOAL := run

run: $(STAMP)
	@$(BIN)/python -m mixsup_lib compare $(if $(DATA),--data "$(DATA)")

test: $(STAMP)
	@$(BIN)/python -m pytest tests --durations=5

lab: $(STAMP)
	@$(BIN)/jupyter lab notebooks

notebooks: $(STAMP)
	@set -e; for book in notebooks/[0-9]*.ipynb; do \
	  echo "executing $$book"; \
	  $(BIN)/papermill --no-progress-bar --log-level WARNING --kernel python3 --cwd notebooks \
	    "$$book" notebooks/.executed.ipynb; \
	  mv notebooks/.executed.ipynb "$$book"; \
	done

# The CPU build of torch carries a version of its own (+cpu). Where pip does not find it, uv knows where PyTorch keeps it.
install-cpu = echo "torch $(TORCH_PIN) for the CPU (about 200 MB)"; \
  [ "$$(uname)" = Darwin ] || $(PIP) install "torch==$(TORCH_PIN)+cpu" 2>/dev/null || \
  { $(PIP) install uv && $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend=cpu "torch==$(TORCH_PIN)"; } || \
  echo "The CPU build could not be found; pip now takes its default build, on Linux one for CUDA (several GB)."; \
  $(PIP) install "torch==$(TORCH_PIN)"
install-cuda = echo "torch $(TORCH_PIN) for CUDA (several GB)"; $(PIP) install "torch==$(TORCH_PIN)"

$(STAMP): pyproject.toml
	@case "$(TORCH)" in cpu|cuda) ;; *) echo "TORCH is '$(TORCH)'; choose TORCH=cpu or TORCH=cuda."; exit 2;; esac
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); name another one: make PYTHON=python3.12"; exit 2; }
	@echo "Setting up $(VENV) (once, a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@for other in $(filter-out $(STAMP),$(wildcard $(VENV)/.installed-*)); do $(PIP) uninstall --yes torch; rm -f $$other; done
	@set -e; $(install-$(TORCH))
	@echo "the library, Jupyter and the test tools"
	@$(PIP) install --editable ".[test]"
	@touch $@
