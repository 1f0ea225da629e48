#!/usr/bin/env bash
# Says what of the cluster is still on this machine; ends with 0 when nothing is.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=settings.sh
source "$here/settings.sh"
# shellcheck source=progress.sh
source "$here/progress.sh"
# shellcheck source=leftovers.sh
source "$here/leftovers.sh"

found=0
report() {
  local kind=$1 what=$2
  if [[ -n $what ]]; then
    say "left behind: $kind:"
    say "$what"
    found=1
  fi
}

our_processes() {
  local link
  for link in /proc/[0-9]*/exe; do
    case $(readlink "$link" 2>/dev/null) in
    # Tests, benchmarks and the drill run this one beside the cluster; the cluster has its own in an image.
    "$cache"/tools/seaweedfs-*) ;;
    "$cache"/tools/*) echo "$(readlink "$link") (${link//[!0-9]/})" ;;
    esac
  done
}

our_folders() {
  local folder
  for folder in "$state" "$run"; do if [[ -e $folder ]]; then echo "$folder"; fi; done
}

report processes "$(our_processes)"
report "monitors of containers" "$(our_shims)"
report mounts "$(our_mounts)"
report "control groups" "$(our_cgroups)"
report "nft tables" "$(our_tables)"
report addresses "$(our_address)"
report "routes to Pods" "$(our_routes)"
report files "$(our_files)"
report folders "$(our_folders)"
((found == 0)) || exit 1
say "Nothing of the cluster is left on this machine."
