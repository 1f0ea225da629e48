#!/usr/bin/env bash
# Writes the configuration files of containerd, the container network, the kubelet, kube-proxy and CoreDNS.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=settings.sh
source "$here/settings.sh"

mkdir -p "$state/config/cni"
cd "$state/config"

# restrict_oom_score_adj: without CAP_SYS_RESOURCE runc may not lower the score, and dies trying.
# SystemdCgroup: there may be no systemd to ask.
cat >containerd.toml <<TOML
version = 2
root = "$state/containerd"
state = "$run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "$containerd_socket"
[ttrpc]
  address = "$containerd_socket.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause_image"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$state/config/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    discard_unpacked_layers = true
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "$run/runc"
TOML

# ptp: every Pod is reached by a route of the host. With a bridge, a reply between two Pods would take the short way past
# the address translation of Services unless the kernel filters bridges too; and a bridge is left behind.
cat >cni/10-holdfast.conflist <<JSON
{
  "cniVersion": "1.0.0",
  "name": "$network_name",
  "plugins": [
    {
      "type": "ptp",
      "ipam": {
        "type": "host-local",
        "dataDir": "$run/cni",
        "ranges": [[{"subnet": "$pod_range"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    }
  ]
}
JSON

# Images here cannot be pulled again, so none is ever collected; and a full disk is the machine's, not the cluster's, affair.
cat >kubelet.yaml <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $node_address
port: 10250
readOnlyPort: 0
healthzBindAddress: 127.0.0.1
tlsCertFile: $pki/kubelet-server.crt
tlsPrivateKeyFile: $pki/kubelet-server.key
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $pki/ca.crt}
authorization: {mode: Webhook}
clusterDNS: [$dns_address]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$containerd_socket
podLogsDir: $state/pod-logs
volumePluginDir: $state/volume-plugins
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
resolvConf: ""
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard:
  memory.available: 50Mi
  nodefs.available: 50Mi
  nodefs.inodesFree: "0%"
  imagefs.available: 50Mi
  imagefs.inodesFree: "0%"
serializeImagePulls: false
nodeStatusUpdateFrequency: 5s
YAML

cat >proxy.yaml <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
bindAddress: $node_address
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
hostnameOverride: $node_name
clientConnection: {kubeconfig: $pki/proxy.kubeconfig}
clusterCIDR: $pod_range
nodePortAddresses: [primary]
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML

cat >Corefile <<COREFILE
.:53 {
  bind $node_address
  errors
  health 127.0.0.1:10053
  ready 127.0.0.1:10054
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    kubeconfig $pki/dns.kubeconfig
    pods insecure
    fallthrough in-addr.arpa ip6.arpa
  }
  cache 5
}
COREFILE
