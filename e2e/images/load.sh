#!/usr/bin/env bash
# Gives images that were built here to the cluster, if there is one and it has not got them yet.
#
#   load.sh IMAGE…
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../cluster/settings.sh
source "$here/../cluster/settings.sh"
# shellcheck source=../cluster/progress.sh
source "$here/../cluster/progress.sh"
# shellcheck source=../cluster/which-cluster.sh
source "$here/../cluster/which-cluster.sh"
# shellcheck source=storage.sh
source "$here/storage.sh"

cluster=$(which_cluster)
ctr=(ctr --address "$containerd_socket" --namespace k8s.io)

# Archives pass through memory where that has room for some of the largest: an image is then written to the disk once, not twice.
archives=${TMPDIR:-/tmp}
if [[ -w /dev/shm && $(df --output=avail --block-size=1G /dev/shm | tail -1) -ge 4 ]]; then archives=/dev/shm; fi
archives=$(mktemp --directory --tmpdir="$archives")
trap 'rm -rf "$archives"' EXIT

load_into_own() {
  local image=$1 archive=$archives/image.tar
  case $image_builder in
  docker) docker save --output "$archive" "$image" ;;
  buildah) "${buildah[@]}" push --quiet "$image" "docker-archive:$archive:$image" ;;
  esac
  "${ctr[@]}" images import "$archive"
  rm "$archive"
}

push() {
  case $image_builder in
  docker) docker push "$1" ;;
  buildah) "${buildah[@]}" push "$1" "docker://$1" ;;
  esac
}

# A cluster of this machine has an image as long as the record of its load and the image itself are there.
is_loaded() {
  local image=$1 key=$2
  [[ -f $record && $(cat "$record") == "$key" ]] || return 1
  [[ $cluster != own || -n $("${ctr[@]}" images ls -q "name==$image") ]]
}

loaded=$run/loaded
if [[ $cluster != own ]]; then loaded=$cache/loaded-$cluster; fi
if [[ $cluster == own && ! -S $containerd_socket ]]; then
  say "There is no cluster to load images into: \`make cluster\` brings one up."
  exit 0
fi
mkdir -p "$loaded"
for image in "$@"; do
  key=$(built_from "$image")
  record=$loaded/${image//[^a-zA-Z0-9.-]/_}
  if is_loaded "$image" "$key"; then
    say "  $image is current in the cluster."
    continue
  fi
  case $cluster in
  own) step "loading $image" -- load_into_own "$image" ;;
  kind) step "loading $image" -- "$bin/kind" load docker-image --name "$kind_name" "$image" ;;
  foreign)
    # Its nodes are out of reach: an image gets there by a registry that both sides can reach.
    [[ $image != localhost/* ]] || fail "KUBECONFIG names a cluster that cannot see $image: set IMAGE (and TEST_IMAGES for the test images) to a name in a registry you may push to and the cluster may pull from"
    step "pushing $image" -- push "$image"
    ;;
  esac
  echo "$key" >"$record"
done
