#!/usr/bin/env bash
# `make test-images`: builds the images that the tests and the demo use, and gives them to the cluster.
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

make() {
  make_image "$@"
  images+=("$image")
}

if [[ $image_builder == buildah ]]; then "$here/../cluster/packages.sh" image; fi
"$here/seaweedfs.sh"
"$here/mongodb.sh" image
lock_images
images=()
make postgres:15 bookworm "$here/postgres" --build-arg MAJOR=15
make postgres:18 sid "$here/postgres" --build-arg MAJOR=18
images+=("${TEST_IMAGES:-localhost/holdfast-test}/mongodb:2")
make redis:7 bookworm "$here/redis" --build-arg SERVER=redis
make redis:8 sid "$here/redis" --build-arg SERVER=redis
make valkey:9 sid "$here/redis" --build-arg SERVER=valkey
make tools:1 sid "$here/tools"

s3=$image_store/s3
mkdir -p "$s3"
cp "$here"/s3/* "$bin/weed" "$s3/"
make s3:1 trixie "$s3"

"$here/load.sh" "${images[@]}"
