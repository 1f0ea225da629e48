#!/usr/bin/env bash
# `make image`: builds the program on this machine, puts it into an image by the Dockerfile, and gives that to the cluster.
#
# Environment: IMAGE; POSTGRES_MAJORS and PGDG as in the Dockerfile, to choose which clients it holds and from where.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../cluster/settings.sh
source "$here/../cluster/settings.sh"
# shellcheck source=../cluster/progress.sh
source "$here/../cluster/progress.sh"
# shellcheck source=storage.sh
source "$here/storage.sh"
# shellcheck source=program.sh
source "$here/program.sh"

image=${IMAGE:-localhost/holdfast:dev}
cd "$repository_dir"

# Without a registry of images PGDG is taken to be out of reach as well: Debian's own suites have these four majors.
case $image_builder in
docker) pgdg=${PGDG:-true} majors=${POSTGRES_MAJORS:-14 15 16 17 18 19} ;;
buildah)
  pgdg=${PGDG:-false} majors=${POSTGRES_MAJORS:-15 17 18 19}
  "$here/../cluster/packages.sh" image
  ;;
esac

build_runtime() {
  build_image "$runtime" "$context" --file Dockerfile --target runtime \
    --build-arg BASE="$base" --build-arg PGDG="$pgdg" --build-arg POSTGRES_MAJORS="$majors"
}

build_final() {
  build_image "$image" "$context" --file Dockerfile --build-arg BASE="$base" --build-arg RUNTIME="$runtime" --build-arg BINARY=holdfast
}

step "building the program" -- build_program

lock_images
# The context is a folder with the program alone: a target folder may lie elsewhere, and holds gigabytes.
context=$image_store/context
mkdir -p "$context"
cp "$program" "$context/holdfast"

base=$(base_of trixie)
if [[ $image_builder == buildah ]]; then "$here/base.sh" trixie; fi
runtime_key=$( (sed '/^FROM ${RUNTIME}/,$d' Dockerfile && echo "$base $pgdg $majors") | fingerprint)
runtime=localhost/holdfast-runtime:$runtime_key
if ! has_image "$runtime"; then step "building the runtime image (PostgreSQL clients $majors)" -- build_runtime; fi

key=$( (cat Dockerfile && echo "$runtime_key" && sha256sum <"$context/holdfast") | fingerprint)
if [[ $(built_from "$image") != "$key" ]]; then
  step "building the image $image" -- build_final
  record_built "$image" "$key"
  remove_replaced
fi
"$here/load.sh" "$image"
