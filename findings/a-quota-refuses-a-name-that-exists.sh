#!/usr/bin/env bash
# Kubernetes 1.37: creating an object that exists already is "forbidden: exceeded quota" and not "already exists" where a ResourceQuota is full.
#
# Quota is part of admission, which comes before the API server looks whether the name is taken. So with `count/configmaps: 1` the second
# POST of the very object that uses it up is answered with 403 Forbidden, where 409 AlreadyExists is what a client waits for that sends a
# create once more because the first answer was lost. Who takes the 403 at its word tells its user that the object was refused, while it is
# there and at work. The object has to be looked up by its name after a 403 of a create, as after a 409. A dry run of the create says the
# same; a server-side apply of the same object, which is an update, is answered with 200.
#
# Run as root or not, with Go and openssl: builds etcd 3.7.3 and kube-apiserver 1.37.2 from their modules into a temporary folder (minutes the
# first time), starts both on 127.0.0.1 and uses no other part of Kubernetes. Ends with 0 while it is so. Seen on 2026-11-30:
#
#   no quota, create a:               201
#   no quota, create a once more:     409 AlreadyExists
#   quota used up by a, create a:     403 Forbidden, exceeded quota: one, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1
#   the same, as a dry run:           403 Forbidden
#   the same, as an apply:            200
set -euo pipefail

version=1.37.2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do
    kill "$pid" 2>/dev/null && while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
  done
  rm -rf "$folder"
}
trap cleanup EXIT

tools=$here/../e2e/cluster/tools
grep -q "k8s.io/kubernetes v$version\b" "$tools/kubernetes/go.mod" || { echo "this is about Kubernetes $version" >&2 && exit 2; }
(cd "$tools/kubernetes" && go build -trimpath -mod=readonly -o "$folder/" k8s.io/kubernetes/cmd/kube-apiserver)
(cd "$tools/etcd" && go build -trimpath -mod=readonly -o "$folder/" tool)

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
client=$(free_port) peer=$(free_port) port=$(free_port)
"$folder/server" --data-dir "$folder/data" --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
  --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
  --initial-cluster "default=http://127.0.0.1:$peer" >"$folder/etcd.log" 2>&1 &
pids+=($!)
openssl genrsa -out "$folder/key" 2048 2>/dev/null
echo 'a-token,a-user,a-user,system:masters' >"$folder/tokens"
"$folder/kube-apiserver" --etcd-servers "http://127.0.0.1:$client" --bind-address 127.0.0.1 --secure-port "$port" --cert-dir "$folder/certs" \
  --token-auth-file "$folder/tokens" --authorization-mode RBAC --service-account-key-file "$folder/key" --service-account-signing-key-file "$folder/key" \
  --service-account-issuer https://example.com --service-cluster-ip-range 10.97.0.0/24 --endpoint-reconciler-type none >"$folder/server.log" 2>&1 &
pids+=($!)

# request METHOD PATH [BODY [TYPE]]: prints code, reason and, of a refusal, what was exceeded.
request() {
  local body=${3:-} code
  code=$(curl --silent --insecure --header 'Authorization: Bearer a-token' --header "Content-Type: ${4:-application/json}" --request "$1" \
    ${body:+--data "$body"} --output "$folder/answer" --write-out '%{http_code}' "https://127.0.0.1:$port$2")
  python3 - "$code" "$folder/answer" <<'PY'
import json, sys

answer = json.load(open(sys.argv[2]))
message = answer.get("message", "") if answer["kind"] == "Status" else ""
quota = message.partition("exceeded quota")
print(" ".join(part for part in (sys.argv[1], answer.get("reason", "")) if part) + (f", {quota[1]}{quota[2]}" if quota[1] else ""))
PY
}
ready() { [[ $(curl --silent --insecure --header 'Authorization: Bearer a-token' "https://127.0.0.1:$port/readyz") == ok ]]; }
for _ in $(seq 600); do
  if ready; then break; fi
  sleep 0.2
done

object='{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}'
maps=/api/v1/namespaces/try/configmaps
quotas=/api/v1/namespaces/try/resourcequotas
request POST /api/v1/namespaces '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "try"}}' >/dev/null
{
  echo "no quota, create a:               $(request POST $maps "$object")"
  echo "no quota, create a once more:     $(request POST $maps "$object")"
  hard='{"hard": {"count/configmaps": "1"}'
  request POST $quotas "{\"apiVersion\": \"v1\", \"kind\": \"ResourceQuota\", \"metadata\": {\"name\": \"one\"}, \"spec\": $hard}}" >/dev/null
  # What the controller of quotas counts, which is not started here.
  request PATCH $quotas/one/status "{\"status\": $hard, \"used\": {\"count/configmaps\": \"1\"}}}" application/merge-patch+json >/dev/null
  # The API server hears of the quota by a watch of its own.
  for _ in $(seq 100); do
    if [[ $(request POST "$maps?dryRun=All" "${object/\"a\"/\"b\"}") == 403* ]]; then break; fi
    sleep 0.2
  done
  echo "quota used up by a, create a:     $(request POST $maps "$object")"
  dry=$(request POST "$maps?dryRun=All" "$object")
  echo "the same, as a dry run:           ${dry%%,*}"
  echo "the same, as an apply:            $(request PATCH "$maps/a?fieldManager=a-user" "$object" application/apply-patch+yaml)"
} | tee "$folder/seen"

diff "$folder/seen" - <<'EXPECTED'
no quota, create a:               201
no quota, create a once more:     409 AlreadyExists
quota used up by a, create a:     403 Forbidden, exceeded quota: one, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1
the same, as a dry run:           403 Forbidden
the same, as an apply:            200
EXPECTED
