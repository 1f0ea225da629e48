#!/usr/bin/env bash
# Makes localhost/debian:SUITE, a minimal Debian, from the mirror that this machine's apt is configured with. Keeps what is there.
#
#   base.sh SUITE…
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../cluster/settings.sh
source "$here/../cluster/settings.sh"
# shellcheck source=../cluster/progress.sh
source "$here/../cluster/progress.sh"
# shellcheck source=storage.sh
source "$here/storage.sh"
# shellcheck source=mirror.sh
source "$here/mirror.sh"

make_base() {
  local suite=$1 mirror=$2 container root
  container=$("${buildah[@]}" from scratch)
  root=$("${buildah[@]}" mount "$container")
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror"
  rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/* \
    "$root"/usr/share/{doc,man,info,locale,lintian}/* "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old
  # What apt installs later in an image leaves its documentation out as well.
  printf 'path-exclude %s\n' '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/info/*' '/usr/share/locale/*' '/usr/share/lintian/*' \
    >"$root/etc/dpkg/dpkg.cfg.d/no-documentation"
  # A mirror may be a snapshot, whose "sid" is past its date; signatures are checked all the same.
  printf '%s;\n' 'APT::Install-Recommends "false"' 'Acquire::Languages "none"' 'APT::Sandbox::User "root"' \
    'Acquire::Check-Valid-Until "false"' >"$root/etc/apt/apt.conf.d/holdfast"
  "${buildah[@]}" config --cmd bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  "${buildah[@]}" commit --rm "$container" "localhost/debian:$suite"
}

for suite in "$@"; do
  if has_image "localhost/debian:$suite"; then continue; fi
  mirror=$(debian_mirror)
  step "making a base image of Debian $suite" -- make_base "$suite" "$mirror"
done
