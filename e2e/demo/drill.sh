#!/usr/bin/env bash
# `make drill`: backs up into an encrypted bucket outside of the cluster, loses the whole cluster, and brings everything back on a new one
# with a store, Secrets and RestoreRequests alone. Leaves the new cluster running to look at, and no server.
# shellcheck disable=SC2154
set -euo pipefail
exec 2>&1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../../scripts/environment.sh
source "$here/../../scripts/environment.sh"
# shellcheck source=../cluster/which-cluster.sh
source "$cluster_dir/which-cluster.sh"
# shellcheck source=chapters.sh
source "$here/chapters.sh"

# What survives: the bucket, and what its owner keeps in a safe.
safe=$(mktemp -d)
s3_port=18333
s3_server=
timings=()

# Its orderly end waits for long, and nothing of it is needed any more.
end_server() {
  if [[ -n $s3_server ]] && kill -0 "$s3_server" 2>/dev/null; then kill -KILL "$s3_server"; fi
  rm -rf "$safe"
}
trap end_server EXIT

# timed WORDS COMMAND…: one line of the table at the end.
timed() {
  local words=$1 started=$SECONDS
  shift
  "$@"
  timings+=("$(printf '%-62s %s' "$words" "$(duration $((SECONDS - started)))")")
}

# Nobody else's cluster is torn down.
refuse_others() {
  local others
  [[ $(which_cluster) == own ]] || fail "the drill removes a whole cluster: it does so only with one that \`make cluster\` makes as processes of this machine (as root, without KUBECONFIG and without Docker)"
  if [[ -f $pki/admin.kubeconfig ]] && "$bin/kubectl" --kubeconfig "$pki/admin.kubeconfig" get --raw /readyz >/dev/null 2>&1; then
    others=$("$bin/kubectl" --kubeconfig "$pki/admin.kubeconfig" get namespaces --selector "!$mark" --output name |
      sed -E "\\#^namespace/(default|kube-.*|$release_namespace)\$#d" | tr '\n' ' ')
    [[ -z $others ]] || fail "the cluster of this machine is in use ($others): the drill would remove it. Run \`make cluster-down\` first if nobody needs it."
  fi
}

bring_up() {
  make cluster
  use_cluster
  "$cluster_dir/build.sh" kubernetes helm
  make image
  "$cluster_dir/../images/build.sh" postgres:15 tools:1
  "$scripts_dir/install.sh"
}

# On the node's own address, which Pods reach and nobody beyond this machine does.
start_s3() {
  "$cluster_dir/../images/seaweedfs.sh"
  mkdir "$safe/bucket"
  cat >"$safe/identities.json" <<JSON
{"identities": [
  {"name": "writer", "credentials": [{"accessKey": "drill-writer", "secretKey": "drill-writer-secret"}], "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
  {"name": "reader", "credentials": [{"accessKey": "drill-reader", "secretKey": "drill-reader-secret"}], "actions": ["Read:backups", "List:backups"]}
]}
JSON
  setsid "$bin/weed" server -dir="$safe/bucket" -ip=127.0.0.1 -ip.bind=127.0.0.1 -volume.max=100 -master.volumeSizeLimitMB=64 \
    -master.port=19333 -volume.port=18080 -filer.port=18888 -master.electionTimeout=1s -master.resumeState=false \
    -s3 -s3.ip.bind="$node_address" -s3.port="$s3_port" -s3.port.iceberg=0 -s3.port.lance=0 -s3.autoCreateBucket=false \
    -s3.config="$safe/identities.json" >"$safe/s3.log" 2>&1 </dev/null &
  s3_server=$!
  disown "$s3_server"
  wait_until "the S3 server outside of the cluster serves" 60 make_bucket || {
    tail -n 20 "$safe/s3.log"
    fail "the S3 server did not start"
  }
}
weed_shell() { "$bin/weed" shell -master=127.0.0.1:19333 -filer=127.0.0.1:18888; }
make_bucket() {
  kill -0 "$s3_server"
  weed_shell <<<"s3.bucket.create -name backups"
  weed_shell <<<s3.bucket.list | grep -qE '^ *backups\b'
}

# A database server, empty, and a claim, empty: what anybody has after a disaster.
make_servers() {
  make_namespace shop
  apply_to shop "$manifests/postgres.yaml" "$here/drill/uploads.yaml"
  step "PostgreSQL is available" -- k wait deployment/postgres --for condition=Available --timeout 120s
  step "the claim is mounted" -- k wait pod/uploads --for condition=Ready --timeout 120s
}

# make_store NAME ACCESS_KEY READ_ONLY
make_store() {
  local store
  k create secret generic s3-credentials --from-literal "AWS_ACCESS_KEY_ID=$2" --from-literal "AWS_SECRET_ACCESS_KEY=$2-secret" >/dev/null
  store=$(name=$1 read_only=$3 endpoint="http://$node_address:$s3_port" recipient=$(<"$safe/recipient") envsubst <"$here/drill/store.yaml")
  say "$store"
  kubectl apply --filename - <<<"$store"
  step "the store is proved" -- k wait "backupstore/$1" --for condition=Ready --timeout 120s
}

# One line for each table, database and file: equal lines, equal data.
contents() {
  sql --dbname shop <"$here/summary.sql"
  sql --dbname ledger --command "SELECT 'entries: ' || count(*) || ' rows, ' || md5(string_agg(md5(e::text), '' ORDER BY e.id)) FROM entries e"
  k exec uploads -- bash -c 'cd /claim && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum
    find . -mindepth 1 \( -type d -printf "%p %m\n" \) -o -printf "%p %m %s %l\n" | sort | sha256sum'
}

back_up() {
  kubectl apply -f "$here/drill/policy.yaml" -f "$here/drill/backup.yaml" >/dev/null
  await_completed backup/last 300
}

restore() {
  kubectl apply -f "$here/drill/restore.yaml" >/dev/null
  await_completed restorerequest/drill 600
}

refuse_others
chapter "A cluster, the images, the operator"
timed "the first cluster with everything on it" bring_up
took

chapter "A bucket outside of it; two databases and a volume in it"
start_s3
make_servers
apply_to shop "$manifests/tools.yaml"
step "tools are ready" -- k wait pod/tools --for condition=Ready --timeout 120s
k exec tools -- age-keygen 2>/dev/null >"$safe/key.txt"
sed -n 's/^# public key: //p' "$safe/key.txt" >"$safe/recipient"
sql --dbname shop <"$here/seed.sql"
sql --dbname postgres --command 'CREATE DATABASE ledger'
sql --dbname ledger --command "CREATE TABLE entries AS SELECT i AS id, md5(i::text) AS what FROM generate_series(1, 100000) AS i"
# shellcheck disable=SC2016  # expands in the Pod
k exec uploads -- bash -c 'cd /claim && mkdir -p a/b && for i in $(seq 200); do head -c $((i * 997)) /dev/urandom >a/b/$i.bin; done && ln -s b/1.bin a/link && chmod 640 a/b/7.bin'
before=$(contents)
say "$before"
took

chapter "A backup of all of it, encrypted to a key whose private half is not in the cluster"
make_store main drill-writer false
timed "backup of two databases and a volume, encrypted" back_up
show kubectl --namespace shop get bstore,bpol,bk
backed_up=$(k get backup last --output 'jsonpath={.status.runId}')
took

chapter "The disaster: the whole cluster is removed"
unset KUBECONFIG
timed "removing the cluster" make cluster-down
[[ ! -e $pki ]] || fail "something of the cluster is left: $pki"
took

chapter "A new cluster that knows nothing"
timed "another cluster with the operator on it" bring_up
timed "an empty database server and an empty claim" make_servers
apply_to shop "$manifests/tools.yaml"
[[ -z $(k get backuppolicies,backups --output name) ]] || fail "the new cluster knows something"
took

chapter "The restore: a read-only store, Secrets, one request, nothing else (docs/disaster-recovery.md)"
recovery_started=$SECONDS
k create secret generic age-key --from-file "identity=$safe/key.txt" >/dev/null
timed "store applied and proved" make_store old-cluster drill-reader true
say "$(<"$here/drill/restore.yaml")"
timed "restore of two databases and a volume" restore
timings+=("$(printf '%-62s %s' "from the first Secret to the last row" "$(duration $((SECONDS - recovery_started)))")")
restored=$(k get restorerequest drill --output 'jsonpath={.status.runId}')
[[ $restored == "$backed_up" ]] || fail "another run was restored: $restored, not $backed_up"
after=$(contents)
say "before:"
say "$before"
say "after:"
say "$after"
[[ $after == "$before" ]] || fail "what came back is not what was lost"
[[ -z $(k get backuppolicies,backups --output name) ]] || fail "the restore needed more than it said"
say "Every row and every file is back, byte for byte."
took

chapter "With the policy, too: what is in the bucket becomes Backups"
sed 's/name: main$/name: old-cluster/' "$here/drill/policy.yaml" | kubectl apply -f - >/dev/null
found() { [[ $(k get backups --selector holdfast.dev/found=true --output 'jsonpath={.items[*].status.runId}') == "$backed_up" ]]; }
started=$SECONDS
wait_until "the backup of the lost cluster has an object" 120 found || fail "it was not found: $(k describe backuppolicy drill)"
timings+=("$(printf '%-62s %s' "from the policy to \`kubectl get backups\`" "$(duration $((SECONDS - started)))")")
show kubectl --namespace shop get backups --show-labels
took

say ""
say "The drill took $(duration $((SECONDS - demo_started))):"
for line in "${timings[@]}"; do say "  $line"; done
say ""
say "The new cluster is still running; the bucket and its server are gone now:"
say "  export KUBECONFIG=$KUBECONFIG        make cluster-down"
