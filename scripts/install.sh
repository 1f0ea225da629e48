#!/usr/bin/env bash
# Installs or upgrades the chart with the image built here, and waits until the controller is available.
#
#   install.sh [HELM ARGUMENT…]
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

use_cluster
"$cluster_dir/build.sh" kubernetes helm
# The image is built for this machine.
case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) architecture=$(uname -m) ;;
esac
install_chart() {
  helm upgrade --install "$release" charts/holdfast --namespace "$release_namespace" --create-namespace \
    --set "image.repository=$image_repository" --set "image.tag=$image_tag" \
    --set "image.architectures={$architecture}" --wait --timeout 3m "$@"
}

# The tag stays the same from build to build, so an upgrade alone would leave the old program running.
restart_controller() {
  kubectl --namespace "$release_namespace" rollout restart deployment --selector "app.kubernetes.io/instance=$release"
  kubectl --namespace "$release_namespace" rollout status deployment --selector "app.kubernetes.io/instance=$release" --timeout 3m
}

installed=$(helm list --namespace "$release_namespace" --filter "^$release\$" --short)
step "installing the chart into $release_namespace" -- install_chart "$@"
if [[ -n $installed ]]; then step "restarting the controller with the current image" -- restart_controller; fi
kubectl --namespace "$release_namespace" get deployments
