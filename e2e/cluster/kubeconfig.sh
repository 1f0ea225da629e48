#!/usr/bin/env bash
# Prints the path of the cluster's kubeconfig, and nothing else.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=settings.sh
source "$here/settings.sh"
# shellcheck source=progress.sh
source "$here/progress.sh"
# shellcheck source=which-cluster.sh
source "$here/which-cluster.sh"

path=$(kubeconfig_of "$(which_cluster)")
[[ -e ${path%%:*} ]] || fail "there is no cluster yet: run \`make cluster\` first"
echo "$path"
