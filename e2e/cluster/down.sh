#!/usr/bin/env bash
# `make cluster-down`: removes the cluster that `make cluster` made. One that KUBECONFIG names is left alone.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=settings.sh
source "$here/settings.sh"
# shellcheck source=progress.sh
source "$here/progress.sh"
# shellcheck source=which-cluster.sh
source "$here/which-cluster.sh"

case $(which_cluster) in
foreign) say "KUBECONFIG names a cluster that is not ours ($KUBECONFIG): it stays as it is." ;;
kind) exec "$here/kind-down.sh" ;;
own) exec "$here/own-down.sh" ;;
esac
