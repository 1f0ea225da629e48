#!/usr/bin/env bash
# A cluster in the running Docker engine, by kind. Written for laptops; the project's own runs use own-up.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=settings.sh
source "$here/settings.sh"
# shellcheck source=progress.sh
source "$here/progress.sh"

"$here/build.sh" kind
command -v kubectl >/dev/null || "$here/build.sh" kubernetes
mkdir -p "$cache"

names=$(kind get clusters)
if grep -qxF "$kind_name" <<<"$names"; then
  kind export kubeconfig --name "$kind_name" --kubeconfig "$kind_kubeconfig"
  if kubectl --kubeconfig "$kind_kubeconfig" get --raw /readyz >/dev/null 2>&1; then
    say "The kind cluster $kind_name is up already (kubeconfig: $kind_kubeconfig)."
    exit 0
  fi
  # A cluster whose containers stopped (the engine was restarted) does not always come back whole.
  step "removing the kind cluster $kind_name, which does not answer" -- kind delete cluster --name "$kind_name"
fi
# What an earlier cluster had been given (see ../images/load.sh) this one has not.
rm -rf "$cache/loaded-kind"
step "creating the kind cluster $kind_name" -- \
  kind create cluster --name "$kind_name" --kubeconfig "$kind_kubeconfig" --wait 180s
step "DNS is ready" -- kubectl --kubeconfig "$kind_kubeconfig" -n kube-system \
  wait deployment/coredns --for condition=Available --timeout 180s
say "The cluster is up (kubeconfig: $kind_kubeconfig)."
