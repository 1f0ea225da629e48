# How images are built and kept. Sourced by the other scripts, after settings.sh and which-cluster.sh.
# shellcheck shell=bash disable=SC2034,SC2154

# vfs and chroot work without privileges that a container or a small machine may lack; the images are kept in the cache.
image_store=$cache/images
buildah=(buildah --storage-driver vfs --root "$image_store/layers" --runroot "$image_store/run")

# With a Docker engine it builds, and official bases can be pulled; otherwise buildah does, on bases made from the mirror.
if command -v docker >/dev/null && docker info >/dev/null 2>&1; then image_builder=docker; else image_builder=buildah; fi

# One build at a time: two that start together would both make the same base.
lock_images() {
  mkdir -p "$image_store/built"
  exec 7>"$image_store/lock"
  flock 7
}

has_image() {
  case $image_builder in
  docker) docker image inspect "$1" >/dev/null 2>&1 ;;
  buildah) "${buildah[@]}" inspect --type image "$1" >/dev/null 2>&1 ;;
  esac
}

# build_image IMAGE FOLDER ARGUMENT…: from FOLDER, with its Dockerfile unless an argument names another.
build_image() {
  local image=$1 folder=$2
  shift 2
  case $image_builder in
  docker) docker build --tag "$image" "$@" "$folder" ;;
  buildah) "${buildah[@]}" bud --isolation chroot --tag "$image" "$@" "$folder" ;;
  esac
}

tag_image() {
  case $image_builder in
  docker) docker tag "$1" "$2" ;;
  buildah) "${buildah[@]}" tag "$1" "$2" ;;
  esac
}

# What an image was last built from, to tell whether it is current.
built_from() {
  local file=$image_store/built/${1//[^a-zA-Z0-9.-]/_}
  if [[ -f $file ]] && has_image "$1"; then cat "$file"; fi
}

# The image that a new one of the same name replaced is of no more use, and vfs keeps a whole copy of each.
remove_replaced() {
  case $image_builder in
  docker) docker image prune --force >/dev/null ;;
  buildah) "${buildah[@]}" rmi --prune >/dev/null ;;
  esac
}

record_built() { echo "$2" >"$image_store/built/${1//[^a-zA-Z0-9.-]/_}"; }

# The base image of a Debian suite. base.sh makes the local ones.
base_of() {
  case $image_builder in
  docker) echo "debian:$1-slim" ;;
  buildah) echo "localhost/debian:$1" ;;
  esac
}

fingerprint() { sha256sum | cut -c1-16; }

# make_image NAME:TAG SUITE FOLDER ARGUMENT…: builds a test image, unless neither the folder nor the base has changed; sets `image` to its name.
make_image() {
  local suite=$2 folder=$3 key
  image=${TEST_IMAGES:-localhost/holdfast-test}/$1
  shift 3
  if [[ $image_builder == buildah ]]; then "$cluster_dir/../images/base.sh" "$suite"; fi
  key=$( (cd "$folder" && find . -type f -print0 | sort -z | xargs -0 sha256sum && echo "$suite $*") | fingerprint)
  if [[ $(built_from "$image") != "$key" ]]; then
    step "building the image $image" -- build_image "$image" "$folder" --build-arg BASE="$(base_of "$suite")" "$@"
    record_built "$image" "$key"
  fi
}
