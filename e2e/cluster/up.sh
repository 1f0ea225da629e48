#!/usr/bin/env bash
# `make cluster`: uses the cluster that KUBECONFIG names, or one in kind where a Docker engine runs, or makes one on this machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=settings.sh
source "$here/settings.sh"
# shellcheck source=progress.sh
source "$here/progress.sh"
# shellcheck source=which-cluster.sh
source "$here/which-cluster.sh"

case $(which_cluster) in
foreign)
  command -v kubectl >/dev/null || "$here/build.sh" kubernetes
  kubectl get --raw /readyz >/dev/null || fail "the cluster that KUBECONFIG=$KUBECONFIG names does not answer"
  say "Using the cluster that KUBECONFIG names ($KUBECONFIG)."
  ;;
kind) exec "$here/kind-up.sh" ;;
own) exec "$here/own-up.sh" ;;
esac
