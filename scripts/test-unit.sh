#!/usr/bin/env bash
# The tests that need no cluster. Some start a PostgreSQL, Redis, MongoDB or S3 server of their own on loopback.
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

"$cluster_dir/packages.sh" test
"$repository_dir/e2e/images/seaweedfs.sh"
"$repository_dir/e2e/images/mongodb.sh"
"$repository_dir/e2e/images/databases.sh"
say "Tests without a cluster:"
messages=$(mktemp)
export told
told=$(mktemp -d)
trap 'rm -rf "$told" "$messages" ${data:+"$data"}' EXIT
# The servers make and delete files by the ten thousand, which none has to outlive: in memory, where there is plenty (in KiB).
memory=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)
if [[ -z ${HOLDFAST_TEST_DATA:-} && -w /dev/shm && $memory -ge 8388608 && $(df --output=avail /dev/shm | tail -n 1) -ge 8388608 ]]; then
  data=$(mktemp -d -p /dev/shm holdfast-tests.XXXXXX)
  # The databases run as users of their own.
  chmod 711 "$data"
  export HOLDFAST_TEST_DATA=$data
fi
cargo test --workspace --exclude holdfast-e2e --locked --no-run --message-format=json-render-diagnostics >"$messages"

# Each program with the folder it runs in, as `cargo test` has it; those that take longest come first.
programs() {
  python3 - "$messages" <<'EOF'
import json, os, sys

LONGEST = ["postgres_restore", "worker_faults", "worker_patience", "worker_verify", "redis_restore", "worker_store", "server_faults"]
programs = []
for line in open(sys.argv[1]):
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
        name = message["target"]["name"]
        rank = LONGEST.index(name) if name in LONGEST else len(LONGEST)
        programs.append((rank, os.path.dirname(message["manifest_path"]), message["executable"]))
for _, folder, program in sorted(programs):
    print(folder, program, sep="\0", end="\0")
EOF
}

# Many of them wait for servers and not for the processor, so several run side by side. What one prints comes in one piece, once it has
# ended.
# shellcheck disable=SC2016
programs | xargs --null --max-args 2 --max-procs "${HOLDFAST_TEST_PROGRAMS:-3}" bash -c '
  out=$(mktemp -p "$told")
  cd "$0"
  "$1" >"$out" 2>&1 && rc=0 || rc=$?
  flock "$told" sh -c "echo \"     Running \$1\"; cat \"\$2\"" sh "$1" "$out"
  exit "$rc"'
