#!/usr/bin/env bash
# Measures the worker beside the stock tools it replaces, and the controller with many policies. Takes some minutes.
#
#   bench.sh [worker | controller]
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
# shellcheck source=../e2e/images/program.sh
source "$repository_dir/e2e/images/program.sh"

"$cluster_dir/packages.sh" test
"$repository_dir/e2e/images/seaweedfs.sh"
"$repository_dir/e2e/images/mongodb.sh"
"$cluster_dir/build.sh" kubernetes etcd rclone
step "building the program" -- build_program --example mongodb_floor

if [[ ${1:-worker} == worker ]]; then
  python3 e2e/bench/worker.py --holdfast "$program" --weed "$bin/weed" --rclone "$bin/rclone" \
    --mongodb-floor "${program%/*}/examples/mongodb_floor"
fi
if [[ ${1:-controller} == controller ]]; then
  python3 e2e/bench/controller.py --holdfast "$program" --bin "$bin" --crds crds/yaml --kubectl "$bin/kubectl"
fi
