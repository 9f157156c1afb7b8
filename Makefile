# Everything here needs Python 3.11 or newer with pip, and nothing else; each target makes the
# virtual environment that it uses. `make PYTHON=python3.12 …` chooses another interpreter.

PYTHON ?= python3
BIN := .venv/bin
TF4 := .venv-tf4
HUB1 := .venv-hub1
MLX := .venv-mlx
ENGINES := .venv-engines
TEMPLATES := $(ENGINES)/llama_cpp_python-0.3.36.tar.gz
TRAINERS := .venv-trainers
SITE := .venv-site
RELEASE := .venv-release
LOWEST := .venv-lowest

# One thread per process: the tests and the demo model are small, and tests run two at a time.
export OMP_NUM_THREADS ?= 1
# Tests start programs by the thousand: without bytecode each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup
ENVIRONMENTS := .venv/installed-dev $(TF4)/installed $(HUB1)/installed $(MLX)/installed \
	$(ENGINES)/installed $(TEMPLATES) $(TRAINERS)/installed $(SITE)/installed \
	$(RELEASE)/installed $(LOWEST)/installed

.PHONY: demo paper test test-full test-deep lint docs site bench constraints clean coverage \
	release-check environments

demo: .venv/installed
	$(BIN)/python scripts/demo.py demo-run

# The YaRN paper's experiments, small: about 40 CPU minutes on one thread. It goes on where it was
# interrupted; to measure anew, remove docs/paper/*.jsonl first.
paper: .venv/installed-dev
	$(BIN)/python scripts/paper.py

# Twice: tests/conftest.py says why.
test: lint
	$(PYTEST) --forks only
	$(PYTEST) --forks never

# What `make test` leaves out, so that the two together are everything.
test-full:
	$(MAKE) --jobs=2 environments
	$(PYTEST) -m full --forks only
	YARNCLI_TF4_PYTHON=$(CURDIR)/$(TF4)/bin/python YARNCLI_HUB1_PYTHON=$(CURDIR)/$(HUB1)/bin/python \
		YARNCLI_MLX_PYTHON=$(CURDIR)/$(MLX)/bin/python \
		YARNCLI_ENGINES_PYTHON=$(CURDIR)/$(ENGINES)/bin/python \
		YARNCLI_TEMPLATES=$(CURDIR)/$(TEMPLATES) \
		YARNCLI_TRAINERS_PYTHON=$(CURDIR)/$(TRAINERS)/bin/python \
		YARNCLI_SITE_PYTHON=$(CURDIR)/$(SITE)/bin/python \
		YARNCLI_RELEASE_PYTHON=$(CURDIR)/$(RELEASE)/bin/python \
		YARNCLI_LOWEST_PYTHON=$(CURDIR)/$(LOWEST)/bin/python \
		$(PYTEST) -m full --forks never

environments: $(ENVIRONMENTS)

# Run by hand: the demo model trained anew, commands side by side at every call, and fuzzing with
# inputs that no run had before; `make test-deep SEED=…` repeats one.
SEED ?= $(shell date +%s)
test-deep: .venv/installed-dev
	YARNCLI_FUZZ_SEED=$(SEED) $(BIN)/python -m pytest -n 2 -m "" tests/fuzz tests/hostile tests/demo \
		tests/config tests/checkpoint tests/safety tests/baking/test_fuzz.py \
		tests/baking/test_patches.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed-dev
	$(BIN)/python scripts/cli_reference.py
	$(BIN)/python scripts/rule_pages.py
	$(BIN)/python scripts/engine_matrix.py
	$(BIN)/python scripts/architecture.py
	$(BIN)/python scripts/method_tables.py
	$(BIN)/python scripts/docs_output.py --update
	$(BIN)/python scripts/docs_output.py --update

# The documentation as a site in site/. With --quiet MkDocs would not count warnings as errors.
site: $(SITE)/installed
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict --clean

# Lines of yarncli/ that the fast tests run, in the tests and in the programs that they start. Half an
# hour. Six tests fail here, which limit the size of files or the seconds of a program: the measuring
# writes files and takes time. So a failure does not stop it, and only the report decides.
coverage: .venv/installed-dev
	rm -f .coverage .coverage.*
	-$(BIN)/python -m coverage run -m pytest -n 2 --dist loadgroup
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet
	$(BIN)/python -m coverage report

# Builds dist/ and says whether it can be released; TAG=v1.2.3 holds it against a tag.
release-check: $(RELEASE)/installed
	$(RELEASE)/bin/python scripts/release_check.py --tag "$(TAG)"

bench: .venv/installed-dev
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/check.py
	$(BIN)/python benchmarks/files.py inspect
	$(BIN)/python benchmarks/files.py convert
	$(BIN)/python benchmarks/bake.py
	for what in large shards; do $(BIN)/python benchmarks/push.py $$what; done
	$(BIN)/python benchmarks/gguf_edit.py
	for what in demo 70m-2k 70m-8k memory prompts; do $(BIN)/python benchmarks/passkey.py $$what; done

constraints: .venv/pip
	$(BIN)/python scripts/make_constraints.py

clean:
	rm -rf .venv $(TF4) $(HUB1) $(MLX) $(ENGINES) $(TRAINERS) $(SITE) site demo-run paper-run $(RELEASE) $(LOWEST) dist htmlcov

# `--group` needs pip 25.1, so pip comes first.
.venv/pip $(TF4)/pip $(HUB1)/pip $(MLX)/pip $(ENGINES)/pip $(TRAINERS)/pip \
		$(SITE)/pip $(RELEASE)/pip $(LOWEST)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "yarncli needs Python 3.11 or newer; choose one with make PYTHON=…")'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	touch $@

.venv/installed: .venv/pip pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e '.[all]'
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install -c constraints.txt -e '.[all]' --group dev
	touch $@

# What an environment does not have itself, it takes from .venv.
define share-main
$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $(@D)/main.pth
	cp $(@D)/main.pth "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
endef

# The last transformers 4, whose numbers are compared with ours; torch and the rest are those of .venv.
$(TF4)/installed: $(TF4)/pip .venv/installed-dev
	$(TF4)/bin/python -m pip install --no-deps transformers==4.57.6 tokenizers==0.22.2 \
		huggingface-hub==0.36.2
	$(share-main)
	touch $@

# The oldest Hub client that we support.
$(HUB1)/installed: $(HUB1)/pip pyproject.toml constraints.txt
	grep -vE '^huggingface-hub==' constraints.txt > $(HUB1)/constraints.txt
	$(HUB1)/bin/python -m pip install -c $(HUB1)/constraints.txt -e . huggingface-hub==1.31.0 \
		httpx==0.28.1 httpcore==1.0.9 \
		pytest pytest-timeout hypothesis gguf
	touch $@

# mlx-lm on the CPU: its model files only, so that none of what it needs to serve is installed.
$(MLX)/installed: $(MLX)/pip
	$(MLX)/bin/python -m pip install numpy==2.4.6 mlx==0.32.4 mlx-cpu==0.32.4
	$(MLX)/bin/python -m pip install --no-deps mlx-lm==0.32.2
	touch $@

# Engines that run on a CPU, at the versions of their tables; torch and the rest are those of .venv.
$(ENGINES)/installed: $(ENGINES)/pip .venv/installed-dev
	$(ENGINES)/bin/python -m pip install --no-deps ctranslate2==4.8.5 onnxruntime-genai==0.18.0 \
		xllamacpp==2026.10.11549
	$(share-main)
	touch $@

# Its models/templates/ are chat templates of real models, each with its model's licence: they are
# read where they lie and never become part of yarncli.
$(TEMPLATES): $(ENGINES)/pip
	$(ENGINES)/bin/python -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest $(@D) \
		llama-cpp-python==0.3.36

# TRL and what it needs besides; torch, transformers and the rest are those of .venv.
$(TRAINERS)/installed: $(TRAINERS)/pip .venv/installed-dev
	$(TRAINERS)/bin/python -m pip install --no-deps trl==1.16.0 datasets==5.2.0 dill==0.4.1 \
		multiprocess==0.70.19 pandas==3.1.1 pyarrow==26.0.1 xxhash==4.1.0
	$(share-main)
	touch $@

$(SITE)/installed: $(SITE)/pip pyproject.toml constraints.txt
	$(SITE)/bin/python -m pip install -c constraints.txt --group site
	touch $@

$(RELEASE)/installed: $(RELEASE)/pip pyproject.toml constraints.txt
	$(RELEASE)/bin/python -m pip install -c constraints.txt --group release
	touch $@

# The lowest versions that pyproject.toml allows, of Python too where it is there. torch is that of constraints.txt: the registry has
# older ones with CUDA only. The workflow on GitHub takes the lowest one from PyTorch's CPU index.
$(LOWEST)/pip: PYTHON := $(shell command -v python3.11 || echo $(PYTHON))
$(LOWEST)/installed: $(LOWEST)/pip pyproject.toml constraints.txt
	$(LOWEST)/bin/python scripts/lowest_versions.py --without torch > $(LOWEST)/constraints.txt
	grep -E '^torch==' constraints.txt >> $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install -c $(LOWEST)/constraints.txt '.[all]' \
		peft pytest pytest-timeout hypothesis
	touch $@
