#!/usr/bin/env bash
# Writes the go.mod and go.sum that build a Kubernetes release from Go's module proxy, into a folder that holds the provisioner.
#
#   kubernetes-module.sh VERSION FOLDER [MODULE=VERSION…]      for the release that is kept here: kubernetes-module.sh 1.37.2 tools/kubernetes
#
# All versions in them are those that Kubernetes itself asks for, so that a release always gives the same two files; what is fetched is
# compared with Go's checksum database. MODULE=VERSION is for a staging module that a proxy does not give in the release's own version.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=progress.sh
source "$here/progress.sh"

version=${1:?a version, such as 1.37.2}
folder=${2:?a folder}
exceptions=("${@:3}")
staging=v0.${version#1.}

# A field of what Go says of the release once it is in the module cache.
downloaded() { go mod download -json "k8s.io/kubernetes@v$version" | awk -F '"' -v field="$1" '$2 == field { print $4 }'; }

write_module() {
  local release=$1
  echo "module holdfast.dev/e2e/cluster/tools/kubernetes"
  echo
  grep '^go ' "$release"
  echo
  echo "tool ("
  printf '\tk8s.io/kubernetes/cmd/%s\n' kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet
  echo ")"
  echo
  echo "require ("
  # What the provisioner uses.
  printf '\tk8s.io/%s %s\n' api "$staging" apimachinery "$staging" client-go "$staging"
  printf '\tk8s.io/kubernetes v%s // indirect\n' "$version"
  echo ")"
  echo
  echo "// The staging modules are published apart from k8s.io/kubernetes, which asks for them as v0.0.0."
  echo "replace ("
  awk -v version="$staging" '$2 == "=>" && $3 ~ /^\.\/staging\// { print "\t" $1, "=>", $1, version }' "$release"
  echo ")"
}

release=$(downloaded GoMod)
[[ -f $release ]] || fail "Go's module proxy does not give k8s.io/kubernetes v$version"
write_module "$release" >"$folder/go.mod"
rm -f "$folder/go.sum"
cd "$folder"
for exception in "${exceptions[@]}"; do go mod edit -replace "k8s.io/${exception%=*}=k8s.io/${exception/=/@}"; done
go mod tidy
