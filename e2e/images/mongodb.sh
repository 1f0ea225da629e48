#!/usr/bin/env bash
# Puts the MongoDB server of the tests into the cache: the file system of the image localhost/holdfast-test/mongodb:2 as the folder
# `$cache/mongodb`, which tests enter with chroot. operator/tests/support/mongodb.rs starts servers in it.
#
#   mongodb.sh [image]     image: only the image
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../cluster/settings.sh
source "$here/../cluster/settings.sh"
# shellcheck source=../cluster/progress.sh
source "$here/../cluster/progress.sh"
# shellcheck source=storage.sh
source "$here/storage.sh"

unpack() {
  local container root
  rm -rf "$folder.part"
  mkdir -p "$folder.part"
  case $image_builder in
  docker)
    container=$(docker create "$image")
    docker export "$container" | tar -x --exclude 'dev/*' -C "$folder.part"
    docker rm "$container"
    ;;
  buildah)
    container=$("${buildah[@]}" from "$image")
    root=$("${buildah[@]}" mount "$container")
    cp -a "$root/." "$folder.part/"
    "${buildah[@]}" rm "$container"
    ;;
  esac
  # Where a server's own folder and the machine's devices and processes are mounted.
  mkdir -p "$folder.part"/{srv,dev,proc}
  # DocumentDB connects to itself by this name.
  echo '127.0.0.1 localhost' >"$folder.part/etc/hosts"
  mv "$folder.part" "$folder"
}

if [[ $image_builder == buildah ]]; then "$here/../cluster/packages.sh" image; fi
"$here/../cluster/build.sh" ferretdb
lock_images
context=$image_store/mongodb
mkdir -p "$context"
cp "$here"/mongodb/* "$bin/ferretdb" "$context/"
make_image mongodb:2 sid "$context"
[[ ${1:-} != image ]] || exit 0

folder=$cache/tools/mongodb-$(built_from "$image")
if [[ ! -d $folder ]]; then step "unpacking the MongoDB server of the tests" -- unpack; fi
ln -sfn "$folder" "$cache/mongodb"
