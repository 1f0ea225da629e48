#!/usr/bin/env bash
# The fault suite at length; `make test` runs a bounded part of it. A failure prints the seed that repeats it.
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

say "Random lives of an installation, ${HOLDFAST_SIMULATOR_STEPS:=1000000} steps:"
export HOLDFAST_SIMULATOR_STEPS
cargo test --package holdfast --locked --test plan_simulator -- --nocapture
