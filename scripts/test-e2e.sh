#!/usr/bin/env bash
# The tests on the running cluster, with the image built here. `make test-e2e` brings both about first.
#
#   test-e2e.sh [NAME…]     of those of the installed product the ones whose names contain one of these, and no others
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
say "Tests on the cluster of $KUBECONFIG, Kubernetes $(kubectl get --raw /version | awk -F '"' '$2 == "gitVersion" { print $4 }'):"
cargo test --package holdfast-e2e --locked --no-run
# They mostly wait for the cluster, so more of them than there are cores run side by side.
threads=${RUST_TEST_THREADS:-12}
if (($#)); then RUST_TEST_THREADS=$threads exec cargo test --package holdfast-e2e --locked --test installed -- "$@"; fi
RUST_TEST_THREADS=$threads cargo test --package holdfast-e2e --locked --lib --test installed
# One takes the installation away and needs the cluster for itself; those of the chart need none.
charts=$(mktemp)
trap 'rm -f "$charts"' EXIT
cargo test --package holdfast-e2e --locked --test chart >"$charts" 2>&1 &
chart=$!
cargo test --package holdfast-e2e --locked --test lifecycle && rc=0 || rc=$?
wait "$chart" || rc=$?
cat "$charts"
exit "$rc"
