#!/usr/bin/env bash
# The fault suite at length; `make test` runs a bounded part of it. A failure prints the seed, the case or the write that repeats it, and
# the parts behind it are run all the same. At the end stand the figures of all parts.
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# `make test` begins at 1, so that it says the same of the same code; here every run sees what none before it saw.
fresh() { od -An -N4 -tu4 /dev/urandom | tr -d ' '; }

said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT
failed=0
table=$said/table
: >"$table"

# part NAME FIGURE COMMAND…: runs it; what it prints after "figure: " goes into the table, and so does FIGURE with the number of its
# tests for an N.
part() {
  local name=$1 figure=$2
  shift 2
  say "$name:"
  local began=$SECONDS result=held
  "$@" 2>&1 | tee "$said/out" || result=FAILED
  [[ $result == held ]] || failed=1
  local passed
  passed=$(awk '/^test result: / { n += $4 } END { print n + 0 }' "$said/out")
  {
    printf '%s\t%s\t%s s\n' "$name" "$result" "$((SECONDS - began))"
    [[ -z $figure ]] || printf '\t%s\n' "${figure/N/$passed}"
    # Tests that run side by side print into one line where the runner's own words have not ended.
    sed -n 's/.*figure: /\t/p' "$said/out"
  } >>"$table"
}

part "Random lives of an installation, from seed ${HOLDFAST_SIMULATOR_FIRST:=$(fresh)} on" "" \
  env HOLDFAST_SIMULATOR_STEPS="${HOLDFAST_SIMULATOR_STEPS:=1000000}" HOLDFAST_SIMULATOR_FIRST="$HOLDFAST_SIMULATOR_FIRST" \
  cargo test --package holdfast --locked --test plan_simulator -- --nocapture

: "${HOLDFAST_FAULT_CASES:=10000}"
part "Random histories against retention and schedules" "N tests, properties with $HOLDFAST_FAULT_CASES cases each" \
  env PROPTEST_CASES="$HOLDFAST_FAULT_CASES" cargo test --no-fail-fast --package holdfast --locked --test plan_retention --test plan_schedule
part "Cut, flipped and made-up bytes in each format" "N tests, properties with $HOLDFAST_FAULT_CASES cases each" \
  env PROPTEST_CASES="$HOLDFAST_FAULT_CASES" cargo test --package holdfast --locked --lib -- archive:: store:: engine::redis::

"$cluster_dir/packages.sh" test
"$repository_dir/e2e/images/seaweedfs.sh"
"$repository_dir/e2e/images/mongodb.sh"
part "Hostile archives, damaged and forged backups, cut connections, restarts and full disks of databases" "N tests" \
  cargo test --no-fail-fast --package holdfast --locked --test volume_hostile --test worker_encryption --test worker_verify --test server_faults

part "Every engine against a store that fails in each way, from seed ${HOLDFAST_FAULT_SEED:=$(fresh)} on" "" \
  env HOLDFAST_FAULT_ROUNDS="${HOLDFAST_FAULT_ROUNDS:=5}" HOLDFAST_FAULT_SEED="$HOLDFAST_FAULT_SEED" \
  cargo test --package holdfast --locked --test worker_faults -- --nocapture

use_cluster
# The controllers of this one run beside the cluster: of the same program that is in the image.
target=$(uname -m)-unknown-linux-gnu
HOLDFAST_BIN=$(realpath "${CARGO_TARGET_DIR:-target}/$target/release/holdfast")
export HOLDFAST_BIN
: "${HOLDFAST_API_FAULTS:=20}" "${HOLDFAST_API_FAULTS_FIRST:=$(($(fresh) % HOLDFAST_API_FAULTS))}" "${HOLDFAST_API_FAULTS_AT_ONCE:=6}"
export HOLDFAST_API_FAULTS HOLDFAST_API_FAULTS_FIRST HOLDFAST_API_FAULTS_AT_ONCE
part "Kills before and after each write of backups and restores, on a real cluster" "" \
  cargo test --package holdfast-e2e --locked --test installed -- --nocapture --test-threads 2 controllers::crash::killed
part "Each fault of the API server at each of these writes; every $HOLDFAST_API_FAULTS. alone in its run, from $HOLDFAST_API_FAULTS_FIRST on" "" \
  cargo test --package holdfast-e2e --locked --test installed -- --nocapture --test-threads 2 controllers::faults

say "Figures:"
cat "$table"
exit "$failed"
