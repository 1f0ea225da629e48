#!/usr/bin/env bash
# The fault suite at length; `make test` runs a bounded part of it. A failure prints the seed that repeats it.
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# `make test` begins at 1, so that it says the same of the same code; here every run sees what none before it saw.
fresh() { od -An -N4 -tu4 /dev/urandom | tr -d ' '; }

say "Random lives of an installation, ${HOLDFAST_SIMULATOR_STEPS:=1000000} steps from seed ${HOLDFAST_SIMULATOR_FIRST:=$(fresh)} on:"
export HOLDFAST_SIMULATOR_STEPS HOLDFAST_SIMULATOR_FIRST
cargo test --package holdfast --locked --test plan_simulator -- --nocapture

"$cluster_dir/packages.sh" test
"$repository_dir/e2e/images/seaweedfs.sh"
"$repository_dir/e2e/images/mongodb.sh"
say "Every engine against a store that fails in each way, ${HOLDFAST_FAULT_ROUNDS:=5} times each from seed ${HOLDFAST_FAULT_SEED:=$(fresh)} on:"
export HOLDFAST_FAULT_ROUNDS HOLDFAST_FAULT_SEED
cargo test --package holdfast --locked --test worker_faults -- --nocapture

use_cluster
# The controllers of this one run beside the cluster: of the same program that is in the image.
target=$(uname -m)-unknown-linux-gnu
HOLDFAST_BIN=$(realpath "${CARGO_TARGET_DIR:-target}/$target/release/holdfast")
export HOLDFAST_BIN
say "Every ${HOLDFAST_API_FAULTS:=1}. of all faults of the API server at writes of backups and restores, on a real cluster:"
export HOLDFAST_API_FAULTS
HOLDFAST_API_FAULTS_AT_ONCE=${HOLDFAST_API_FAULTS_AT_ONCE:-6} \
  cargo test --package holdfast-e2e --locked --test installed -- --nocapture --test-threads 2 controllers::crash controllers::faults
