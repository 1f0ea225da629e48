#!/usr/bin/env bash
# Writes one JSON schema for each kind of the pinned Kubernetes version, for kubeconform: from the sources that are in
# Go's module cache anyway, so that nothing is fetched from elsewhere.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=settings.sh
source "$here/settings.sh"

cd "$here/tools/kubernetes"
sources=$(go list -m -f '{{.Dir}}' k8s.io/kubernetes)
folder=$cache/schemas/${sources##*@}
if [[ ! -d $folder ]]; then
  rm -rf "$folder.part"
  mkdir -p "$folder.part"
  python3 "$here/schemas.py" "$sources/api/openapi-spec/v3" "$folder.part"
  mv "$folder.part" "$folder"
fi
ln -sfn "$folder" "$cache/schemas/current"
