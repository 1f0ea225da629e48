#!/usr/bin/env bash
# The fault suite at length; `make test` runs a bounded part of it. A failure prints the seed that repeats it.
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

say "Random lives of an installation, ${HOLDFAST_SIMULATOR_STEPS:=1000000} steps:"
export HOLDFAST_SIMULATOR_STEPS
cargo test --package holdfast --locked --test plan_simulator -- --nocapture

"$cluster_dir/packages.sh" test
"$repository_dir/e2e/images/seaweedfs.sh"
"$repository_dir/e2e/images/mongodb.sh"
say "Every engine against a store that fails in each way, ${HOLDFAST_FAULT_ROUNDS:=6} times each:"
export HOLDFAST_FAULT_ROUNDS
cargo test --package holdfast --locked --test worker_faults -- --nocapture

use_cluster
# The controllers of this one run beside the cluster: of the same program that is in the image.
target=$(uname -m)-unknown-linux-gnu
HOLDFAST_BIN=$(realpath "${CARGO_TARGET_DIR:-target}/$target/release/holdfast")
export HOLDFAST_BIN
<<<<<<< HEAD
say "Every ${HOLDFAST_API_FAULTS:=1}. of all faults of the API server at writes of backups and restores, on a real cluster:"
export HOLDFAST_API_FAULTS
HOLDFAST_API_FAULTS_AT_ONCE=${HOLDFAST_API_FAULTS_AT_ONCE:-6} \
  cargo test --package holdfast-e2e --locked --test installed -- --nocapture --test-threads 2 controllers::crash controllers::faults
=======
say "Every write of backups and of restores on a real cluster, failed by the API server in each way:"
HOLDFAST_API_FAULTS=all HOLDFAST_API_FAULTS_AT_ONCE=${HOLDFAST_API_FAULTS_AT_ONCE:-6} \
  cargo test --package holdfast-e2e --locked --test installed -- --nocapture --test-threads 2 controllers::crash controllers::faults
>>>>>>> 9761461 (Tests take less of the machine: programs run in Pods over the API, kills of a restore begin with the restore)
