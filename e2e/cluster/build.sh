#!/usr/bin/env bash
# Builds what Debian does not package, once for each version, into the cache; `$cache/bin` links to the current ones.
#
#   build.sh kubernetes etcd coredns pause …      the names of the folders in tools/
# Environment: HOLDFAST_KUBERNETES, another release of kubernetes-versions; all links are then in `$cache/bin-kubernetes-VERSION`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=settings.sh
source "$here/settings.sh"
# shellcheck source=progress.sh
source "$here/progress.sh"

# The folder with the tool's go.mod.
sources_of() {
  if [[ $1 == kubernetes && -n $other_kubernetes ]]; then
    echo "$cache/modules/kubernetes-$other_kubernetes"
  else
    echo "$here/tools/$1"
  fi
}

# The go.mod of another release follows from the release: it is written here, beside the same provisioner.
make_sources() {
  local name=$1 folder listed
  folder=$(sources_of "$name")
  [[ $folder != "$here/tools/$name" ]] || return 0
  listed=$(grep -E "^${other_kubernetes//./\\.}( |\$)" "$here/kubernetes-versions") ||
    fail "HOLDFAST_KUBERNETES=$other_kubernetes is none of the releases in e2e/cluster/kubernetes-versions"
  mkdir -p "$folder"
  rm -rf "$folder/provisioner"
  cp -r "$here/tools/$name/provisioner" "$folder/"
  # shellcheck disable=SC2086  # VERSION [MODULE=VERSION…]
  set -- $listed
  if [[ ! -f $folder/done || $(cat "$folder/done") != "$listed" ]]; then
    step "resolving the modules of $name $1" -- "$here/kubernetes-module.sh" "$1" "$folder" "${@:2}"
    echo "$listed" >"$folder/done"
  fi
}

# The version that the tool's go.mod asks for.
version_of() {
  local name=$1
  case $name in
  kubernetes) module=k8s.io/kubernetes ;;
  etcd) module=go.etcd.io/etcd/server/v3 ;;
  coredns) module=github.com/coredns/coredns ;;
  helm) module=helm.sh/helm/v3 ;;
  kubeconform) module=github.com/yannh/kubeconform ;;
  rclone) module=github.com/rclone/rclone ;;
  ferretdb) module=github.com/FerretDB/FerretDB/v2 ;;
  kind) module=sigs.k8s.io/kind ;;
  promtool) module=github.com/prometheus/prometheus ;;
  definitions-*) module=k8s.io/apiextensions-apiserver ;;
  pause) echo 1 && return ;;
  *) fail "no such tool: $name" ;;
  esac
  awk -v module="$module" '
    $1 == module { print substr($2, 2); exit }
    $1 == "require" && $2 == module { print substr($3, 2); exit }' "$(sources_of "$name")/go.mod"
}

# The folder in the cache: the version for people, a hash of the sources for changes that keep it.
folder_of() {
  local name=$1 hash
  hash=$(cd "$(sources_of "$name")" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
  echo "$cache/tools/$name-$(version_of "$name")-${hash:0:8}"
}

build() {
  local name=$1 folder=$2
  local flags="-s -w" packages=tool static="" tags="" version
  version=$(version_of "$name")
  case $name in
  kubernetes)
    local package=k8s.io/component-base/version minor=${version#1.}
    flags+=" -X $package.gitVersion=v$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
    packages="tool ./..."
    ;;
  helm) flags+=" -X helm.sh/helm/v3/internal/version.version=v$version" ;;
  coredns | definitions-*) packages=./... ;;
  pause) packages=./... static=true ;;
  rclone | ferretdb) static=true ;;
  # Rules need no service discovery: that is most of the program.
  promtool) tags=remove_all_sd ;;
  esac
  # These also run inside images, some of which hold no C library.
  if [[ -n $static ]]; then export CGO_ENABLED=0; fi
  mkdir -p "$folder.part"
  cd "$(sources_of "$name")"
  local modfile=()
  if [[ -d patches ]]; then
    apply_patches "$name" "$folder.patched"
    modfile=(-modfile "$folder.patched/go.mod")
  fi
  # shellcheck disable=SC2086  # $packages is a list
  nice go build -trimpath -mod=readonly "${modfile[@]}" -tags "$tags" -ldflags "$flags" -o "$folder.part/" $packages
  rm -rf "$folder.patched"
  rename_main "$name" "$folder.part"
  mv "$folder.part" "$folder"
}

# The tool's main module with patches/*.patch applied, and a go.mod that takes it from there.
apply_patches() {
  local name=$1 patched=$2 module patch
  rm -rf "$patched"
  mkdir -p "$patched"
  version_of "$name" >/dev/null
  go mod download "$module"
  cp -r "$(go list -m -f '{{.Dir}}' "$module")" "$patched/module"
  chmod -R u+w "$patched/module"
  for patch in patches/*.patch; do patch --directory "$patched/module" --strip 1 <"$patch"; done
  cp go.mod go.sum "$patched/"
  go mod edit -replace "$module=$patched/module" "$patched/go.mod"
}

# Go names a program after the last part of its module's path, which for etcd is "server".
rename_main() {
  if [[ $1 == etcd ]]; then mv "$2/server" "$2/etcd"; fi
}

mkdir -p "$cache/tools" "$bin"
for name in "$@"; do
  # For each tool one of its own: who wants another does not wait for the quarter of an hour that a release of Kubernetes takes.
  exec 8>"$cache/build-$name${other_kubernetes:+-$other_kubernetes}.lock"
  flock 8
  make_sources "$name"
  folder=$(folder_of "$name")
  if [[ ! -d $folder ]]; then
    command -v go >/dev/null || fail "building $name takes Go 1.26 or newer, and there is no go on the PATH"
    rm -rf "$folder.part"
    step "building $name $(version_of "$name")" -- build "$name" "$folder"
  fi
  for file in "$folder"/*; do ln -sfn "$file" "$bin/${file##*/}"; done
done
