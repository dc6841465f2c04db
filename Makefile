# Every target does its own set-up. Python 3.11 or 3.12; nothing else has to be installed.
PYTHON ?= python3
VENV := .venv
VLLM_VENV := .venv-vllm
BIN := $(VENV)/bin
VLLM_BIN := $(VLLM_VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup proto check test demo demo-real demo-real-short vllm test-vllm demo-vllm test-clients test-compose validate-deploy bench-verifier bench-verifier-load soak-verifier attack-verifier bench-differential bench-prm bench-prm-load bench-search bench-rollout bench-training bench-weights bench-loop bench-curate bench-evaluate gpu experiment experiment-small clean docs-pages fmt hooks lock package docs

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(VENV)/ready ## make .venv with everything that runs without a GPU

# torch first and by exact version: with it there, nothing else pulls in a larger build.
$(VENV)/ready: pyproject.toml hatch_build.py $(wildcard proto/prime/v1/*.proto)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_FLAGS) torch==2.13.0
	$(BIN)/pip install $(PIP_FLAGS) -e '.[dev]'
	@touch $@

proto: setup ## compile proto/ into prime/v1/ again
	$(BIN)/pip install $(PIP_FLAGS) --no-deps -e .

docs-pages: setup ## write the generated parts of docs/: settings, command line, metrics
	$(BIN)/python -m tools.docs_pages

.venv-docs/ready: tools/docs-requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install $(PIP_FLAGS) -r tools/docs-requirements.txt
	@touch $@

docs: .venv-docs/ready ## build the site of the docs into site/; a broken link fails
	.venv-docs/bin/mkdocs build --clean

fmt: setup ## mend what lint can mend, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: setup ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# A file stays in one process, so that what a file sets up is set up once.
test: setup ## all tests that need neither vLLM nor a GPU
	$(BIN)/pytest -n 2 --dist loadfile

demo: setup ## SFT, then PRIME with all services, on a toy task
	$(BIN)/primectl demo

demo-real: setup ## SFT and PRIME on a real model of 135 M parameters, measured before and after; about 45 minutes on 2 cores
	$(BIN)/primectl demo-real

demo-real-short: setup ## a few steps of it: a real tokenizer, chat template, end tokens and GGUF import
	$(BIN)/primectl demo-real --short

vllm: $(VLLM_VENV)/ready ## make .venv-vllm: the same with vLLM's CPU build

# vLLM's CPU build asks for vision and audio packages that do not fit the CPU torch and break imports; text needs none.
$(VLLM_VENV)/ready: pyproject.toml hatch_build.py $(wildcard proto/prime/v1/*.proto)
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/pip install $(PIP_FLAGS) torch==2.13.0
	$(VLLM_BIN)/pip install $(PIP_FLAGS) -e '.[dev,vllm]'
	$(VLLM_BIN)/pip uninstall $(PIP_FLAGS) --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: vllm ## the tests of the vLLM engine
	$(VLLM_BIN)/pytest tests/vllm

.venv-clients/ready: tests/clients/requirements.txt tests/clients/requirements-alone.txt
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/pip install $(PIP_FLAGS) -r tests/clients/requirements.txt
	.venv-clients/bin/pip install $(PIP_FLAGS) --no-deps -r tests/clients/requirements-alone.txt
	@touch $@

test-clients: setup .venv-clients/ready ## clients of other projects, unmodified, against the scoring service; about two minutes
	$(BIN)/pytest -m clients tests/clients

test-compose: setup ## build the images and run the whole stack in containers; needs a Docker engine with compose
	deploy/with-engine $(BIN)/pytest -m compose tests/compose

.venv-deploy/ready: deploy/requirements.txt
	$(PYTHON) -m venv .venv-deploy
	.venv-deploy/bin/pip install $(PIP_FLAGS) -r deploy/requirements.txt
	@touch $@

# Builds and locks packages, and runs hooks. Not in .venv: users of the code need none of it.
.venv-tools/ready: tools/requirements.txt
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/pip install $(PIP_FLAGS) -r tools/requirements.txt
	@touch $@

hooks: setup .venv-tools/ready ## run lint, format, types and contracts before each commit
	.venv-tools/bin/pre-commit install

# Which build of torch fits depends on the machine, so torch and its GPU libraries are not locked for development.
TORCH_PARTS := cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
	nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver \
	nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 \
	nvidia-nvtx torch triton
LOCK := .venv-tools/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock' $(UPGRADE)
lock: .venv-tools/ready ## pin all packages with their hashes in requirements/; UPGRADE=--upgrade takes newer versions
	$(LOCK) --extra verifier --extra libraries --output-file requirements/verifier.txt
	$(LOCK) --extra dev $(addprefix --no-emit-package ,$(TORCH_PARTS)) --output-file requirements/development.txt

package: .venv-tools/ready ## build sdist and wheel, check them, and install the wheel with each light extra; EXTRAS="prm trainer" takes others
	.venv-tools/bin/python -m tools.check_package $(EXTRAS)

# Its own: it wants other versions of what the others want.
.venv-checkov/ready: deploy/checkov-requirements.txt
	$(PYTHON) -m venv .venv-checkov
	.venv-checkov/bin/pip install $(PIP_FLAGS) -r deploy/checkov-requirements.txt
	@touch $@

validate-deploy: .venv-deploy/ready .venv-checkov/ready ## check images, compose files, manifests, protos and the forge's files, without an engine or a cluster
	.venv-deploy/bin/yamllint --strict -c deploy/yamllint.yml docker-compose*.yml deploy .github .pre-commit-config.yaml mkdocs.yml
	.venv-deploy/bin/hadolint deploy/Dockerfile
	.venv-deploy/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose*.yml
	.venv-deploy/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.venv-deploy/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	.venv-deploy/bin/buf lint proto
	deploy/validate-protos
	deploy/validate-k8s

demo-vllm: vllm ## the demo with the vLLM engine
	$(VLLM_BIN)/primectl demo --engine vllm

bench-verifier: setup ## the verifier beside the plain alternatives; about two minutes
	$(BIN)/python -m benchmarks.verifier

bench-verifier-load: setup ## 6,000 honest answers on a machine kept busy by others; about half an hour; the last line is JSON
	$(BIN)/python -m benchmarks.verifier_load

soak-verifier: setup ## a hundred thousand jobs, and what they leave behind; about ten minutes
	$(BIN)/python -m benchmarks.verifier_soak

attack-verifier: setup ## 20,000 lies and rewritings through the verifier; about five minutes; the last line is JSON
	$(BIN)/python -m benchmarks.attack_verifier

bench-differential: setup ## the verifier beside Math-Verify on the same rows; about ten minutes; the last line is JSON
	$(BIN)/python -m benchmarks.verifier_differential

bench-prm: setup ## PRM scoring beside the plain way, and vLLM where `make vllm` was run; about 25 minutes
	$(BIN)/python -m benchmarks.prm

bench-prm-load: setup ## the scoring service with a greedy client, clients that leave, hostile bodies; about three minutes
	$(BIN)/python -m benchmarks.prm_load

bench-search: setup ## beam, trees and particles beside best-of-N and votes at equal tokens; about half an hour
	$(BIN)/python -m benchmarks.search

bench-rollout: vllm ## the rollout service beside raw vLLM; about six minutes
	$(VLLM_BIN)/python -m benchmarks.rollout

bench-training: setup ## memory and speed of a training step by model size; a GPU is used where there is one; about five minutes
	$(BIN)/python -m benchmarks.training

bench-weights: setup ## the weight push beside a bare gRPC stream; about two minutes
	$(BIN)/python -m benchmarks.weights

.venv-trl/ready:
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/pip install $(PIP_FLAGS) torch==2.13.0
	.venv-trl/bin/pip install $(PIP_FLAGS) trl==1.16.0
	@touch $@

bench-loop: setup .venv-trl/ready ## the whole loop beside TRL; about fifteen minutes
	$(BIN)/python -m benchmarks.loop --trl-python .venv-trl/bin/python

bench-curate: setup ## 100,000 rows through the rules and de-duplication of curation; the last line is JSON
	$(BIN)/python -m benchmarks.curate

bench-evaluate: setup ## an evaluation beside its engine alone, of a real model or MODEL=folder; the last line is JSON
	$(BIN)/python -m benchmarks.evaluate $(if $(MODEL),--model $(MODEL))

experiment: setup ## tables, plots and figures of the trial of process rewards, from kept results; the last line is JSON
	$(BIN)/python -m benchmarks.experiment report

experiment-small: setup ## a small part of the trial from nothing; under an hour; the last line is JSON
	$(BIN)/python -m benchmarks.experiment small

# No set-up: it runs in the Python that has torch and transformers for the GPU.
gpu: ## all that needs a GPU, in ten minutes, with torch and transformers of PYTHON alone; the last line is JSON
	$(PYTHON) -m benchmarks.gpu $(GPU_FLAGS)

clean: ## remove the virtual environments and generated code, not the runs
	rm -rf $(VENV) $(VLLM_VENV) prime/v1/*_pb2*
