# Every word of the project. `make help` lists them; each is a short script, so that it can be read and run by itself.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# A word made of others runs them in their order, also under -j.
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

# The image that `make image` builds and `make install` runs. With KUBECONFIG set: a name that cluster can pull.
IMAGE ?= localhost/holdfast:dev
# Built programs, images and downloads: kept outside the work tree, shared by all work trees of a user.
HOLDFAST_CACHE ?= $(HOME)/.cache/holdfast
export IMAGE HOLDFAST_CACHE

.PHONY: help
help: ## List the words of this Makefile
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Bring up everything, back up a database, lose it, restore it (first run: about 22 minutes on two cores)
	@e2e/demo/run.sh

.PHONY: drill
drill: ## Back up, remove the whole cluster, restore on a new one from the bucket alone (removes the cluster of this machine)
	@e2e/demo/drill.sh

.PHONY: test
test: test-unit test-e2e ## Run all tests: those without a cluster, then those on one

.PHONY: test-unit
test-unit: ## Run the tests that need no cluster (against real servers as local processes)
	@scripts/test-unit.sh

.PHONY: test-e2e test-cluster
test-e2e: install test-images ## Run the tests that drive the installed product on a real cluster
	@scripts/test-e2e.sh
test-cluster: test-e2e

.PHONY: faults
faults: install test-images ## Run the fault suite at length: random faults, a failing store, a failing API server (an hour)
	@scripts/faults.sh

.PHONY: test-matrix
test-matrix: ## Run the main tests on each release of Kubernetes from 1.32 to 1.37 (hours the first time)
	@scripts/test-matrix.sh

.PHONY: lint
lint: ## Check format, clippy, licenses, the chart and that generated files are current
	@scripts/lint.sh

.PHONY: generate
generate: ## Write the generated files anew: CRDs, the chart's copy of them, docs/api.md
	@scripts/generate.sh

.PHONY: cluster
cluster: ## Bring up a cluster (KUBECONFIG's, kind where Docker runs, else one on this machine)
	@e2e/cluster/up.sh

.PHONY: cluster-down
cluster-down: ## Remove the cluster that `make cluster` made, with all its traces
	@e2e/cluster/down.sh

.PHONY: kubeconfig
kubeconfig: ## Print the path of the cluster's kubeconfig: export KUBECONFIG=$(make -s kubeconfig)
	@e2e/cluster/kubeconfig.sh

.PHONY: image
image: ## Build the image from the Dockerfile as $IMAGE and load it into the cluster, if there is one
	@e2e/images/holdfast.sh

.PHONY: test-images
test-images: ## Build the images the tests and the demo use (databases, S3, tools) and load them
	@e2e/images/build.sh

.PHONY: install
install: cluster image ## Install the chart into namespace holdfast-system with the image built here
	@scripts/install.sh

.PHONY: uninstall
uninstall: ## Remove the release; CRDs, policies and backups stay
	@scripts/uninstall.sh

.PHONY: bench
bench: ## Measure the worker beside the stock tools
	@scripts/bench.sh

.PHONY: clean
clean: ## Remove what was built in the work tree; the cache and the cluster stay
	@cargo clean
