#!/usr/bin/env bash
# Puts databases into the cache that are newer than this machine's Debian, for tests that start them without a cluster:
#
#   $cache/databases/bin/redis-server, …/valkey-server, and redis-cli and valkey-cli beside them
#   $cache/databases/usr/lib/postgresql/MAJOR/bin/postgres, and the other programs of PostgreSQL beside it
#
# They come from Debian's newest suites, with all that they are linked to, and each runs with that and with nothing of this machine's.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../cluster/settings.sh
source "$here/../cluster/settings.sh"
# shellcheck source=../cluster/progress.sh
source "$here/../cluster/progress.sh"
# shellcheck source=mirror.sh
source "$here/mirror.sh"

postgres=19
wanted=("postgresql-$postgres" redis-server valkey-server systemd-standalone-sysusers systemd-standalone-tmpfiles)
# PostgreSQL does not run as root, and nobody else may look into root's home, where the cache is.
place=$cache/tools
if [[ $(id -u) == 0 ]]; then place=/var/cache/holdfast; fi
folder=$place/databases-$(sha256sum <"${BASH_SOURCE[0]}" | cut -c1-16)

# With lists and a record of installed packages of its own, so that this machine's stay as they are.
download() {
  local apt=$1 mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  mirror=$(debian_mirror)
  mkdir -p "$apt"/{lists,archives}/partial
  touch "$apt/status"
  printf "deb [signed-by=$keyring] $mirror %s main\n" sid experimental >"$apt/sources"
  # What is in experimental counts as what is in sid does: the newer one is taken, whatever has moved on to sid by then.
  cat >"$apt/preferences" <<EOF
Package: postgresql-$postgres postgresql-client-$postgres libpq5 redis-server redis-tools valkey-server valkey-tools
Pin: release a=experimental
Pin-Priority: 500
EOF
  cat >"$apt/conf" <<EOF
Dir::Etc::sourcelist "$apt/sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "$apt/preferences";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
EOF
  APT_CONFIG=$apt/conf apt-get update -q
  APT_CONFIG=$apt/conf apt-get install -qy --download-only "${wanted[@]}"
}

# launcher PROGRAM FILE: writes PROGRAM, which runs FILE (both from the folder's top) with the libraries that are there. It finds them by its
# own place, and gives that place as the program's name: PostgreSQL looks for its other files from there.
launcher() {
  local up=${1//[^\/]/}
  up=${up//\//..\/}
  cat >"$folder.part/$1" <<EOF
#!/bin/sh
top=\$(cd "\${0%/*}/${up%/}" && pwd -P)
exec "\$top/usr/lib/$triplet/$loader" --library-path "\$top/usr/lib/$triplet" --argv0 "\$0" "\$top/$2" "\$@"
EOF
  chmod 755 "$folder.part/$1"
}

install_databases() {
  local apt=$folder.part/apt package program triplet loader
  download "$apt"
  for package in "$apt"/archives/*.deb; do dpkg-deb --extract "$package" "$folder.part"; done
  rm -rf "$apt" "$folder.part"/usr/share/{doc,man,info,locale,lintian,perl,bash-completion}
  triplet=$(uname -m)-linux-gnu
  loader=$(basename "$(find "$folder.part/usr/lib/$triplet" -maxdepth 1 -name 'ld-linux*' | head -n 1)")
  [[ -n $loader ]] || fail "Debian's libc6 has no ld-linux in /usr/lib/$triplet"
  mkdir -p "$folder.part/bin"
  for program in redis-server redis-cli valkey-server valkey-cli; do launcher "bin/$program" "usr/bin/$program"; done
  local programs=usr/lib/postgresql/$postgres/bin
  mv "$folder.part/$programs" "$folder.part/$programs.d"
  mkdir "$folder.part/$programs"
  for program in "$folder.part/$programs.d"/*; do
    launcher "$programs/${program##*/}" "$programs.d/${program##*/}"
  done
  # A server that does not run here is told now, and not by a test.
  for program in bin/redis-server bin/valkey-server "$programs"/{postgres,initdb,pg_dump,psql}; do "$folder.part/$program" --version; done
  mv "$folder.part" "$folder"
}

mkdir -p "$cache" "$place"
exec 8>"$cache/databases.lock"
flock 8
if [[ ! -d $folder ]]; then
  rm -rf "$folder.part"
  step "installing PostgreSQL $postgres, Redis and Valkey for tests" -- install_databases
fi
ln -sfn "$folder" "$cache/databases"
