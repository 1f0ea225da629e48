#!/usr/bin/env bash
# The tests that need no cluster. Some start a PostgreSQL, MongoDB or S3 server of their own on loopback.
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

"$cluster_dir/packages.sh" test
"$repository_dir/e2e/images/seaweedfs.sh"
"$repository_dir/e2e/images/mongodb.sh"
say "Tests without a cluster:"
export of="--workspace --exclude holdfast-e2e --locked"
# shellcheck disable=SC2086
cargo test $of --no-run

# Most of them wait for servers and not for the processor, so several test programs run side by side. What one prints comes in one
# piece, once it has ended.
programs() {
  local first=(worker_faults redis_restore worker_store postgres_restore) # the longest
  local name path
  for name in "${first[@]}"; do echo "--test $name"; done
  for path in {operator,crds}/tests/*.rs operator/tests/*/main.rs; do
    name=$(basename "${path%/main.rs}" .rs)
    if [[ " ${first[*]} " != *" $name "* ]]; then echo "--test $name"; fi
  done
  echo "--lib --bins"
  echo "--doc"
}
export told
told=$(mktemp -d)
trap 'rm -rf "$told"' EXIT
# shellcheck disable=SC2016
programs | xargs --max-procs "${HOLDFAST_TEST_PROGRAMS:-3}" -I{} bash -c '
  out=$(mktemp -p "$told")
  cargo test $of {} >"$out" 2>&1 && rc=0 || rc=$?
  flock "$told" cat "$out"
  exit "$rc"'
