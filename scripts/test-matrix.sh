#!/usr/bin/env bash
# `make test-matrix`: installs the product and runs its tests on each release of Kubernetes in e2e/cluster/kubernetes-versions, one after the
# other, each on a cluster of its own that is made of processes of this machine and is gone afterwards. Ends with a table, and with 1 when
# a release failed. The first time it builds each release, which takes ten minutes and more on two cores.
#
#   test-matrix.sh [NAME…]     runs the tests whose names contain one of these, not those of `tests` below
# Environment: VERSIONS, the releases or minors to run on ("1.32 1.35.4"); without it all of the list.
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
# shellcheck source=../e2e/cluster/which-cluster.sh
source "$cluster_dir/which-cluster.sh"

# What depends on the release: the rules of the definitions, Jobs and Pods of every shape and those that end badly, claims, restores that
# stop workloads. Postgres, volumes and ConfigMaps go there and back, and an encrypted bucket is read on an empty cluster.
tests=(admission:: conditions:: injected:: shaped:: roundtrip:: no_false_success:: restores:: secrets:: engines::volume:: engines::config::
  disaster::with_nothing_but_an_encrypted_bucket)
if (($#)); then tests=("$@"); fi

listed=$cluster_dir/kubernetes-versions
logs_of_matrix=$cache/matrix

# Nobody's cluster is torn down.
[[ $(which_cluster) == own ]] ||
  fail "the matrix makes clusters as processes of this machine: it runs as root on Debian 12, without KUBECONFIG and without Docker"
[[ ! -e $state && ! -e $run ]] ||
  fail "there is a cluster on this machine, and the matrix needs its place: run \`make cluster-down\` first if nobody needs it"

# The releases of the list that VERSIONS asks for.
wanted_releases() {
  local all wanted found
  all=$(awk '!/^#/ && NF { print $1 }' "$listed")
  if [[ -z ${VERSIONS:-} ]]; then
    echo "$all"
    return
  fi
  for wanted in $VERSIONS; do
    found=$(grep -E "^${wanted//./\\.}(\\.[0-9]+)?\$" <<<"$all") || fail "VERSIONS asks for $wanted, which is not in ${listed#"$repository_dir/"}"
    echo "$found"
  done
}

# What the table says must be what ran: a cluster of another release is a failure.
serves() {
  local version
  version=$(curl -fsS --cacert "$pki/ca.crt" "$api_server/version" | awk -F '"' '$2 == "gitVersion" { print $4 }')
  [[ $version == "v$1" ]] || { say "the API server is of ${version:-an unknown release}, not v$1" && return 1; }
}

# Each part is a script that ends at its first error; the file `stage` says which one came last.
on_release() {
  echo cluster >"$work/stage"
  "$cluster_dir/own-up.sh" && serves "$1" || return
  echo images >"$work/stage"
  "$repository_dir/e2e/images/holdfast.sh" && "$repository_dir/e2e/images/build.sh" || return
  echo install >"$work/stage"
  "$scripts_dir/install.sh" || return
  echo tests >"$work/stage"
  "$scripts_dir/test-e2e.sh" "${tests[@]}"
}

# A name that fits no test any more would pass without a test: prints the first such one.
name_without_test() {
  local name
  for name in "${tests[@]}"; do
    grep -qF -- "$name" <(grep '^test .* \.\.\. ' "$1") || { echo "$name" && return; }
  done
}

current=$(awk '$1 == "k8s.io/kubernetes" { print substr($2, 2) }' "$cluster_dir/tools/kubernetes/go.mod")
releases=$(wanted_releases)
mkdir -p "$logs_of_matrix"
work=$(mktemp -d)
trap '"$cluster_dir/own-down.sh"; rm -rf "$work"' EXIT
printf '%-12s %-18s %-24s %s\n' Kubernetes Result Tests Took >"$work/table"
failed=0
for release in $releases; do
  export HOLDFAST_KUBERNETES=$release
  if [[ $release == "$current" ]]; then unset HOLDFAST_KUBERNETES; fi
  say "Kubernetes $release:"
  began=$SECONDS log=$logs_of_matrix/$release.log
  if on_release "$release" 2>&1 | tee "$log"; then result=passed; else result="FAILED ($(<"$work/stage"))" failed=1; fi
  if [[ $result == passed ]]; then
    empty=$(name_without_test "$log")
    if [[ -n $empty ]]; then result="FAILED (no test $empty)" failed=1; fi
  fi
  "$cluster_dir/own-down.sh"
  counts=$(awk '/^test result: / { passed += $4; failed += $6 } END { print passed + 0 " passed, " failed + 0 " failed" }' "$log")
  printf '%-12s %-18s %-24s %s\n' "$release" "$result" "$counts" "$(duration $((SECONDS - began)))" >>"$work/table"
done
say "Logs: $logs_of_matrix/"
cat "$work/table"
exit "$failed"
