# Where everything of the cluster lives and which addresses it uses. Sourced by the other scripts; does nothing by itself.
# shellcheck shell=bash disable=SC2034

cluster_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository_dir=$(cd "$cluster_dir/../.." && pwd)

# Built once for a version, kept across clusters and work trees.
cache=${HOLDFAST_CACHE:-$HOME/.cache/holdfast}
# Another release than that of tools/kubernetes, one of kubernetes-versions: its programs are linked to from a folder of their own.
other_kubernetes=${HOLDFAST_KUBERNETES:-}
bin=$cache/bin${other_kubernetes:+-kubernetes-$other_kubernetes}

# Removed by `make cluster-down`. What a reboot ends anyway (processes, sockets) is recorded apart from what it keeps.
state=${HOLDFAST_CLUSTER_STATE:-/var/lib/holdfast-cluster}
run=${HOLDFAST_CLUSTER_RUN:-/run/holdfast-cluster}
logs=$state/logs
pki=$state/pki
containerd_socket=$run/containerd.sock

# The kubelet refuses a loopback address as its node's, so one private address is put on `lo`. It is outside the range of
# Service addresses: kube-proxy rejects what is inside and belongs to no Service.
node_name=holdfast
node_address=10.96.255.1
service_range=10.96.0.0/17
api_service_address=10.96.0.1
dns_address=10.96.0.10
pod_range=10.244.0.0/24
api_server=https://$node_address:6443

network_name=holdfast
nft_table=holdfast
pause_image=localhost/holdfast-pause:1

# Names the kind cluster where a Docker engine runs.
kind_name=holdfast
kind_kubeconfig=$cache/kind-$kind_name.kubeconfig

export PATH="$bin:$PATH:/usr/sbin:/sbin"
