#!/usr/bin/env bash
# Puts the definitions of prometheus-operator that the chart knows into the cache: from that project's Go module, which Go fetches and
# compares with go.sum, so that nothing is fetched from elsewhere.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=settings.sh
source "$here/settings.sh"
# shellcheck source=progress.sh
source "$here/progress.sh"

module=github.com/prometheus-operator/prometheus-operator
cd "$here/tools/prometheus-operator"
version=$(awk -v module="$module" '$1 == "require" && $2 == module { print $3 }' go.mod)
folder=$cache/monitoring/$version

fetch() {
  local sources kind
  go mod download "$module@$version"
  sources=$(go mod download -json "$module@$version" | awk -F '"' '$2 == "Dir" { print $4 }')
  mkdir -p "$folder.part"
  for kind in prometheusrules servicemonitors; do
    install -m 644 "$sources/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$folder.part/"
  done
  mv "$folder.part" "$folder"
}

if [[ ! -d $folder ]]; then
  command -v go >/dev/null || fail "fetching the definitions of prometheus-operator takes Go 1.26 or newer, and there is no go on the PATH"
  rm -rf "$folder.part"
  step "fetching the definitions of prometheus-operator $version" -- fetch
fi
ln -sfn "$folder" "$cache/monitoring/current"
