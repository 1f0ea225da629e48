#!/usr/bin/env bash
# Valkey 9.1: `valkey-cli --rdb` of the same release cannot copy a server that holds one hash with an expiring field.
#
# A replica says which Valkey it is with `REPLCONF version`. The server writes RDB 80 for one that says 9.0 or later, and RDB 11 for one that
# says nothing. RDB 11 has no place for the expiry of a field, so the child that saves ends at that hash ("Can't store key … in RDB version
# 11") and the server closes the connection. valkey-cli says no version. So whoever copies a server with its own stock client has worked with
# every data set until the first HEXPIRE; the client's words tell nothing of the cause, which stands in the server's log alone.
#
# Run as root on Debian: takes valkey-server and valkey-tools 9.1.2-1 of Debian's suites sid and experimental, with all that they are linked
# to, into a temporary folder, and listens on 127.0.0.1. Ends with 0 while it is so. Seen on 2026-11-30:
#
#   valkey-cli 9.1.2, a string alone:             exit 0, "Transfer finished with success after 193 bytes"
#   valkey-cli 9.1.2, a hash with HPEXPIRE:       exit 1, "Error reading bulk length while SYNCing"
#   the server's log:                             "Can't store key (db 0) in RDB version 11"
#   the same hash with SAVE on the server:        "OK"
set -euo pipefail

version=9.1.2-1
port=${PORT:-17379}
folder=$(mktemp -d)
server=
cleanup() {
  if [[ -n $server ]]; then
    kill "$server"
    while kill -0 "$server" 2>/dev/null; do sleep 0.1; done
  fi
  rm -rf "$folder"
}
trap cleanup EXIT

# shellcheck disable=SC2016  # apt expands it
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 'Component: main' | sort -u | head -n 1)
mkdir -p "$folder"/apt/{lists,archives}/partial "$folder/root" "$folder/data"
touch "$folder/apt/status"
for suite in sid experimental; do
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
done >"$folder/apt/sources"
cat >"$folder/apt/conf" <<CONF
Dir::Etc::sourcelist "$folder/apt/sources";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$folder/apt/lists";
Dir::State::status "$folder/apt/status";
Dir::Cache "$folder/apt";
Acquire::Languages "none";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
CONF
export APT_CONFIG=$folder/apt/conf
apt-get update -qq
apt-get install -qqy --download-only "valkey-server=$version" "valkey-tools=$version" \
  systemd-standalone-sysusers systemd-standalone-tmpfiles >"$folder/apt/log"
unset APT_CONFIG
for package in "$folder"/apt/archives/*.deb; do dpkg-deb --extract "$package" "$folder/root"; done
libraries=$(dirname "$(find "$folder/root/usr/lib" -name 'libssl.so.*' | head -n 1)")
loader=$(find "$libraries" -maxdepth 1 -name 'ld-linux*' | head -n 1)
run() { "$loader" --library-path "$libraries" "$folder/root/usr/bin/$1" "${@:2}"; }
client() { run valkey-cli -p "$port" "$@"; }

run valkey-server --version
"$loader" --library-path "$libraries" "$folder/root/usr/bin/valkey-server" --bind 127.0.0.1 --port "$port" --save "" --dir "$folder/data" \
  --repl-diskless-sync-delay 0 --logfile "$folder/data/log" &
server=$!
for _ in $(seq 100); do
  if [[ $(client ping 2>&1) == PONG ]]; then break; fi
  sleep 0.1
done

copy() {
  local rc=0
  timeout 30 "$loader" --library-path "$libraries" "$folder/root/usr/bin/valkey-cli" -p "$port" --rdb "$folder/$1" >"$folder/$1.log" 2>&1 || rc=$?
  echo "valkey-cli --rdb, $2: exit $rc, $(tail -n 1 "$folder/$1.log")" >&2
  echo "$rc"
}

client set greeting hello >/dev/null
plain=$(copy plain.rdb "a string alone")
client hset session token abc user 1 >/dev/null
client hpexpire session 100000000 fields 1 token >/dev/null
expiring=$(copy expiring.rdb "a hash with an expiring field")
saved=$(client save)
words=$(grep -o "Can't store key.*" "$folder/data/log" | head -n 1)
echo "the server's log: $words; SAVE on the server: $saved"

[[ $plain == 0 && $expiring != 0 && $saved == OK && $words == *"RDB version 11"* ]] || {
  echo "This has changed: read the lines above." >&2
  exit 1
}
echo "It is still so."
