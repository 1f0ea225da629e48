#!/usr/bin/env bash
# Writes the generated files anew. The tests that compare them with the sources write them when told so.
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

HOLDFAST_GENERATE=1 cargo test --quiet --package holdfast-crds --test generated
git status --short -- crds/yaml charts docs
