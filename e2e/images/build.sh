#!/usr/bin/env bash
# `make test-images`: builds the images that the tests and the demo use, and gives them to the cluster.
#
#   build.sh [NAME:TAG…]     these images; without a name all of them:
#
#   localhost/holdfast-test/postgres:15, …:18    localhost/holdfast-test/mongodb:2    localhost/holdfast-test/s3:1
#   localhost/holdfast-test/redis:7, …:8    localhost/holdfast-test/valkey:9    localhost/holdfast-test/tools:1
# Environment: TEST_IMAGES, the names' prefix, for a cluster that pulls from a registry.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../cluster/settings.sh
source "$here/../cluster/settings.sh"
# shellcheck source=../cluster/progress.sh
source "$here/../cluster/progress.sh"
# shellcheck source=storage.sh
source "$here/storage.sh"

all=(postgres:15 postgres:18 mongodb:2 redis:7 redis:8 valkey:9 tools:1 s3:1)
wanted=("$@")
if [[ $# == 0 ]]; then wanted=("${all[@]}"); fi

wants() { [[ " ${wanted[*]} " == *" $1 "* ]]; }

make() {
  local s3=$image_store/s3
  case $1 in
  postgres:15) make_image "$1" bookworm "$here/postgres" --build-arg MAJOR=15 ;;
  postgres:18) make_image "$1" sid "$here/postgres" --build-arg MAJOR=18 ;;
  redis:7) make_image "$1" bookworm "$here/redis" --build-arg SERVER=redis ;;
  redis:8) make_image "$1" sid "$here/redis" --build-arg SERVER=redis --build-arg SUITE=experimental ;;
  valkey:9) make_image "$1" sid "$here/redis" --build-arg SERVER=valkey ;;
  tools:1) make_image "$1" sid "$here/tools" ;;
  s3:1)
    mkdir -p "$s3"
    cp "$here"/s3/* "$bin/weed" "$s3/"
    make_image "$1" trixie "$s3"
    ;;
  # Made by mongodb.sh before the lock, which it takes itself.
  mongodb:2) image=${TEST_IMAGES:-localhost/holdfast-test}/mongodb:2 ;;
  *) fail "there is no test image $1, only ${all[*]}" ;;
  esac
  images+=("$image")
}

if [[ $image_builder == buildah ]]; then "$here/../cluster/packages.sh" image; fi
if wants s3:1; then "$here/seaweedfs.sh"; fi
if wants mongodb:2; then "$here/mongodb.sh" image; fi
lock_images
images=()
for name in "${wanted[@]}"; do make "$name"; done
"$here/load.sh" "${images[@]}"
