#!/usr/bin/env bash
# `make demo`: from nothing to a database that was lost and is back, on a real cluster. Leaves everything running to look at.
set -euo pipefail
exec 2>&1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../../scripts/environment.sh
source "$here/../../scripts/environment.sh"

# shellcheck source=chapters.sh
source "$here/chapters.sh"

samples=crds/samples/valid

# rclone in the tools Pod: a client that knows nothing of Holdfast.
tools() { k exec tools -- "$@"; }

chapter "A cluster, the images, the operator"
make cluster
use_cluster
"$cluster_dir/build.sh" kubernetes helm
# The compiler leaves a processor idle for minutes: the other images are made meanwhile.
others=$(mktemp)
trap 'wait; rm -f "$others"' EXIT
"$cluster_dir/../images/build.sh" postgres:15 tools:1 s3:1 >"$others" 2>&1 &
make image
wait $! || fail "the images of the database, the tools and the S3 server: $(<"$others")"
say "$(<"$others")"
"$scripts_dir/install.sh"
took

chapter "An S3 server (namespace storage) and a PostgreSQL (namespace shop)"
make_namespace storage
make_namespace shop
apply_to storage "$manifests/s3.yaml"
k create secret generic s3-credentials \
  --from-literal AWS_ACCESS_KEY_ID=holdfast-access-key --from-literal AWS_SECRET_ACCESS_KEY=holdfast-secret-key >/dev/null
apply_to shop "$manifests/postgres.yaml" "$manifests/tools.yaml"
step "S3 server is available" -- kubectl --namespace storage wait deployment/s3 --for condition=Available --timeout 120s
step "PostgreSQL is available" -- kubectl --namespace shop wait deployment/postgres --for condition=Available --timeout 120s
step "tools are ready" -- kubectl --namespace shop wait pod/tools --for condition=Ready --timeout 120s
sql --dbname shop <"$here/seed.sql"
before=$(sql --dbname shop <"$here/summary.sql")
say "What is in the database:"
say "$before"
took

chapter "Where backups go, and what to save when ($samples/store.yaml, policy-postgres.yaml)"
show kubectl apply -f "$samples/store.yaml" -f "$samples/policy-postgres.yaml"
step "the store is proved: an object was written, read, listed and deleted" -- \
  kubectl --namespace shop wait backupstore/main --for condition=Ready --timeout 120s
step "the policy is accepted" -- kubectl --namespace shop wait backuppolicy/shop --for condition=Ready --timeout 60s
took

chapter "A backup, now ($samples/backup-on-demand.yaml)"
show kubectl apply -f "$samples/backup-on-demand.yaml"
await_completed backup/before-upgrade 300
key=$(k get backup before-upgrade --output 'jsonpath={.status.artifacts[0].key}')
took

chapter "The disaster: the whole database is dropped"
say "\$ psql --dbname postgres --command 'DROP DATABASE shop WITH (FORCE)'"
sql --dbname postgres --command 'DROP DATABASE shop WITH (FORCE)'
say "\$ psql --dbname shop"
if answer=$(sql --dbname shop --command 'SELECT 1' 2>&1); then fail "the database is still there"; fi
say "$(head -n 1 <<<"$answer")"
took

chapter "The restore ($samples/restore-from-backup.yaml)"
show kubectl apply -f "$samples/restore-from-backup.yaml"
await_completed restorerequest/undo-upgrade 300
after=$(sql --dbname shop <"$here/summary.sql")
say "before:"
say "$before"
say "after:"
say "$after"
[[ $after == "$before" ]] || fail "what came back is not what was lost"
say "Every row is back, byte for byte."
took

chapter "The same without Holdfast: stock tools, straight from the bucket"
sql --dbname postgres --command 'CREATE DATABASE shop_by_hand'
# pg_restore of the server's own major version: a newer one says things that an older server does not know.
download="rclone cat s3:backups/$key | zstd -d"
say "\$ $download | pg_restore --exit-on-error --dbname shop_by_hand"
tools bash -o pipefail -c "$download" |
  k exec --stdin deployment/postgres -- pg_restore --host /tmp --username postgres --exit-on-error --dbname shop_by_hand
by_hand_summary=$(sql --dbname shop_by_hand <"$here/summary.sql")
[[ $by_hand_summary == "$before" ]] || fail "what stock tools restored is not what was lost: $by_hand_summary"
say "$by_hand_summary"
say "The same rows again."
took

chapter "What there is to look at"
show kubectl --namespace shop get bstore,bpol,bk,rr
say ""
show kubectl --namespace shop get events --sort-by .metadata.creationTimestamp \
  --output 'custom-columns=KIND:.involvedObject.kind,NAME:.involvedObject.name,TYPE:.type,REASON:.reason,MESSAGE:.message' \
  --field-selector 'involvedObject.kind!=Pod,involvedObject.kind!=ReplicaSet,involvedObject.kind!=Deployment,involvedObject.kind!=Job'
say ""
say "\$ rclone lsl s3:backups"
tools rclone lsl s3:backups
say ""
say "All of it took $(duration $((SECONDS - demo_started))). Everything is still running:"
say "  export KUBECONFIG=$KUBECONFIG"
say "  kubectl -n shop get holdfast        kubectl -n shop describe backup before-upgrade        make cluster-down"
