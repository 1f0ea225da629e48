#!/usr/bin/env bash
# The tests on the running cluster, with the image built here. `make test-e2e` brings both about first.
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

use_cluster
"$cluster_dir/build.sh" kubernetes helm promtool
"$cluster_dir/monitoring.sh"
# Some tests start controllers of their own beside the cluster: of the same program that is in the image.
target=$(uname -m)-unknown-linux-gnu
HOLDFAST_BIN=$(realpath "${CARGO_TARGET_DIR:-target}/$target/release/holdfast")
export HOLDFAST_BIN
say "Tests on the cluster of $KUBECONFIG:"
# They mostly wait for the cluster, so more of them than there are cores run side by side.
RUST_TEST_THREADS=${RUST_TEST_THREADS:-12} cargo test --package holdfast-e2e --locked
