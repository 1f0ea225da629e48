#!/usr/bin/env bash
# Removes the kind cluster and its kubeconfig.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=settings.sh
source "$here/settings.sh"
# shellcheck source=progress.sh
source "$here/progress.sh"

"$here/build.sh" kind
step "removing the kind cluster $kind_name" -- kind delete cluster --name "$kind_name"
rm -rf "$kind_kubeconfig" "$cache/loaded-kind"
