#!/usr/bin/env bash
# Removes the release. CRDs, the objects of users and the data in the bucket stay.
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

use_cluster
"$cluster_dir/build.sh" helm
helm uninstall "$release" --namespace "$release_namespace" --ignore-not-found --wait
