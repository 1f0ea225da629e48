#!/usr/bin/env bash
# Installs the Debian packages that are missing. Says nothing and takes no time when none is.
#
#   packages.sh cluster | image | test
set -euo pipefail
# shellcheck source=progress.sh
source "$(dirname "${BASH_SOURCE[0]}")/progress.sh"

declare -A packages=(
  [cluster]="containerd runc containernetworking-plugins nftables conntrack iproute2 socat openssl util-linux curl ca-certificates buildah"
  [image]="buildah debootstrap ca-certificates patch"
  [test]="age postgresql-15 redis-server python3-venv pkg-config zstd patch"
  [lint]="shellcheck python3"
)

missing=()
find_missing() {
  local set package status
  missing=()
  for set in "$@"; do
    [[ -n ${packages[$set]:-} ]] || fail "no such set of packages: $set (there are: ${!packages[*]})"
    for package in ${packages[$set]}; do
      # dpkg-query ends with 1 for a package it has never heard of; that is an answer, not an error.
      status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=unknown
      [[ $status == installed ]] || missing+=("$package")
    done
  done
}

find_missing "$@"
((${#missing[@]})) || exit 0

[[ $(id -u) == 0 ]] || fail "these packages are missing and installing them takes root: ${missing[*]}"
# apt does not wait for another one of these scripts; what that one installs is missing no more.
exec 6>/run/lock/holdfast-packages
flock 6
find_missing "$@"
((${#missing[@]})) || exit 0

install_missing() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update
  # Services of a package are not wanted: every process here is started by hand, with its own folders and ports.
  local policy=/usr/sbin/policy-rc.d made=false
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    made=true
  fi
  local status=0
  apt-get install -y --no-install-recommends "${missing[@]}" || status=$?
  if [[ $made == true ]]; then rm "$policy"; fi
  return "$status"
}
step "installing ${missing[*]}" -- install_missing
