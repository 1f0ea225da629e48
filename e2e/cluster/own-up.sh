#!/usr/bin/env bash
# Brings up a cluster of one node on this machine, from packages and the built binaries. Starts only what does not run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=settings.sh
source "$here/settings.sh"
# shellcheck source=progress.sh
source "$here/progress.sh"
# shellcheck source=processes.sh
source "$here/processes.sh"
# shellcheck source=leftovers.sh
source "$here/leftovers.sh"

parts=(etcd api-server controller-manager scheduler containerd kubelet proxy dns provisioner)
kubectl=("$bin/kubectl" --kubeconfig "$pki/admin.kubeconfig")

node_is_ready() {
  [[ $("${kubectl[@]}" get node "$node_name" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}') == True ]]
}

is_up() {
  local part
  [[ -f $run/proved ]] || return 1
  for part in "${parts[@]}"; do is_running "$part" || return 1; done
  "${kubectl[@]}" get --raw /readyz && node_is_ready
}

# What `make cluster-down` puts back: settings of the kernel that the kubelet and the network change, and which folders were
# not there, since some of the parts' folders cannot be chosen.
remember_machine() {
  local setting folder
  if [[ -f $state/before/done ]]; then return; fi
  mkdir -p "$state/before"
  for setting in "${changed_settings[@]}"; do
    if [[ -f /proc/sys/$setting ]]; then echo "$setting $(cat "/proc/sys/$setting")"; fi
  done >"$state/before/settings"
  for folder in "${shared_folders[@]}"; do
    if [[ ! -e $folder ]]; then echo "$folder"; fi
  done >"$state/before/absent"
  touch "$state/before/done"
}

set_up_network() {
  if [[ -z $(our_address) ]]; then ip address add "$node_address/32" dev lo; fi
  echo 1 >/proc/sys/net/ipv4/ip_forward
  # What leaves the machine from a Pod carries the machine's address. The table is replaced whole, so this may be run again.
  nft -f - <<NFT
table ip $nft_table
delete table ip $nft_table
table ip $nft_table {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr $pod_range ip daddr != { $pod_range, $service_range, $node_address } masquerade
  }
}
NFT
}

# Memory is there, processors are few: the garbage collectors of all these programs run a quarter as often.
export GOGC=400

start_control_plane() {
  start etcd "$bin/etcd" --name "$node_name" --data-dir "$state/etcd" \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster "$node_name=http://127.0.0.1:2380" --auto-compaction-retention 1 \
    --unsafe-no-fsync # a test cluster's state is not worth a disk flush for each write
  start api-server "$bin/kube-apiserver" --etcd-servers http://127.0.0.1:2379 \
    --bind-address "$node_address" --advertise-address "$node_address" --secure-port 6443 \
    --service-cluster-ip-range "$service_range" --authorization-mode Node,RBAC \
    --enable-admission-plugins NodeRestriction --allow-privileged \
    --client-ca-file "$pki/ca.crt" --tls-cert-file "$pki/api-server.crt" --tls-private-key-file "$pki/api-server.key" \
    --kubelet-client-certificate "$pki/api-server-to-kubelet.crt" --kubelet-client-key "$pki/api-server-to-kubelet.key" \
    --kubelet-certificate-authority "$pki/ca.crt" --kubelet-preferred-address-types InternalIP \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$pki/service-accounts.pub" --service-account-signing-key-file "$pki/service-accounts.key"
}

start_controllers() {
  start controller-manager "$bin/kube-controller-manager" --kubeconfig "$pki/controller-manager.kubeconfig" \
    --bind-address 127.0.0.1 --use-service-account-credentials --leader-elect=false --kube-api-qps 200 --kube-api-burst 400 \
    --flex-volume-plugin-dir "$state/volume-plugins" \
    --service-account-private-key-file "$pki/service-accounts.key" --root-ca-file "$pki/ca.crt" \
    --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key"
  start scheduler "$bin/kube-scheduler" --kubeconfig "$pki/scheduler.kubeconfig" --bind-address 127.0.0.1 --leader-elect=false
}

containerd_answers() { ctr --address "$containerd_socket" version; }

load_pause_image() {
  if [[ -n $(ctr --address "$containerd_socket" --namespace k8s.io images ls -q "name==$pause_image") ]]; then return; fi
  local archive=$state/pause.tar
  "$here/single-file-image.sh" "$bin/pause" "$pause_image" "$archive"
  ctr --address "$containerd_socket" --namespace k8s.io images import "$archive"
  rm "$archive"
}

start_node() {
  start kubelet "$bin/kubelet" --config "$state/config/kubelet.yaml" --kubeconfig "$pki/kubelet.kubeconfig" \
    --root-dir "$state/kubelet" --hostname-override "$node_name" --node-ip "$node_address"
  start proxy "$bin/kube-proxy" --config "$state/config/proxy.yaml"
  start dns "$bin/coredns" -conf "$state/config/Corefile"
  start provisioner "$bin/provisioner" "$pki/provisioner.kubeconfig" "$node_name" "$state/volumes"
}

apply_manifests() {
  local file
  for file in dns storage; do
    pause_image=$pause_image dns_address=$dns_address node_address=$node_address envsubst <"$here/manifests/$file.yaml"
    echo ---
  done | "${kubectl[@]}" apply --server-side -f -
}

# The last condition: a restricted Pod starts, reaches a Service and gets a name resolved.
prove_pods_resolve() {
  "${kubectl[@]}" -n kube-system delete pod dns-check --ignore-not-found
  pause_image=$pause_image envsubst <"$here/manifests/dns-check.yaml" | "${kubectl[@]}" apply -f -
  "${kubectl[@]}" -n kube-system wait pod/dns-check --for 'jsonpath={.status.phase}=Succeeded' --timeout 120s
  "${kubectl[@]}" -n kube-system delete pod dns-check
}

await() {
  if wait_until "$@"; then return; fi
  say "last lines of the logs in $logs:"
  tail -n 8 "$logs"/*.log >&2
  fail "the cluster did not come up"
}

if [[ -d $run ]] && is_up >/dev/null 2>&1; then
  say "The cluster is up already (kubeconfig: $pki/admin.kubeconfig)."
  exit 0
fi

[[ $(id -u) == 0 ]] || fail "a cluster of one's own takes root, a running Docker engine takes none, and KUBECONFIG may name a cluster"
say "Bringing up a cluster on this machine:"
"$here/packages.sh" cluster
"$here/build.sh" kubernetes etcd coredns pause
umask 022
mkdir -p "$state" "$run" "$logs" "$state/volumes"
chmod 711 "$state"
rm -f "$run/proved"
step "certificates" -- "$here/certificates.sh"
"$here/configuration.sh"
remember_machine
set_up_network
start_control_plane
start containerd containerd --config "$state/config/containerd.toml"
await "containerd answers" 60 containerd_answers
step "loading the pause image" -- load_pause_image
await "API server is ready" 300 "${kubectl[@]}" get --raw /readyz
start_controllers
start_node
step "DNS and storage class" -- apply_manifests
await "node is Ready" 120 node_is_ready
await "DNS server is ready" 60 curl -fsS http://127.0.0.1:10054/ready
await "default ServiceAccount exists" 60 "${kubectl[@]}" -n kube-system get serviceaccount default
step "names resolve in a Pod" -- prove_pods_resolve
touch "$run/proved"
say "The cluster is up (kubeconfig: $pki/admin.kubeconfig)."
