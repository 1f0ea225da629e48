#!/usr/bin/env bash
# The tests that need no cluster. Some start a PostgreSQL, MongoDB or S3 server of their own on loopback.
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

"$cluster_dir/packages.sh" test
"$repository_dir/e2e/images/seaweedfs.sh"
"$repository_dir/e2e/images/mongodb.sh"
say "Tests without a cluster:"
cargo test --workspace --exclude holdfast-e2e --locked
