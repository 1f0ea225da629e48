# Lists what the cluster puts on the machine, each kind by a mark that only it bears. Sourced by the other scripts.
# shellcheck shell=bash disable=SC2034,SC2154

# Each container has a monitor, told apart by the socket of our containerd in its command line.
our_shims() {
  local file
  for file in /proc/[0-9]*/cmdline; do
    # A process may end while it is looked at.
    if tr '\0' '\n' 2>/dev/null <"$file" | grep -qxF -- "$containerd_socket"; then
      file=${file#/proc/}
      echo "${file%/cmdline}"
    fi
  done
}

our_mounts() { awk -v state="$state/" -v run="$run/" 'index($2, state) == 1 || index($2, run) == 1 { print $2 }' /proc/mounts; }

our_cgroups() {
  local top
  for top in /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods; do
    if [[ -d $top ]]; then find "$top" -type d; fi
  done
}

our_tables() {
  # Without nft there can be no table of ours.
  if command -v nft >/dev/null; then
    nft list tables | awk -v own="$nft_table" '$3 == "kube-proxy" || $3 == own { print $2, $3 }'
  fi
}

our_routes() { ip -o route show root "$pod_range"; }

our_address() { ip -o address show | awk -v address="$node_address/32" '$4 == address'; }

# Settings of the kernel that the kubelet, kube-proxy and the network change, below /proc/sys.
changed_settings=(net/ipv4/ip_forward vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops
  kernel/keys/root_maxkeys kernel/keys/root_maxbytes)

# Folders of some parts that cannot be chosen: links to logs, answers of network plugins, sockets of monitors and devices.
shared_folders=(/var/log/containers /var/lib/cni /run/containerd /var/lib/kubelet)

our_files() {
  if [[ -d /var/log/containers ]]; then find /var/log/containers -type l -lname "$state/*"; fi
  # grep ends with 1 when no file holds it, which is an answer.
  if [[ -d /var/lib/cni/results ]]; then grep -rlF -- "$run/" /var/lib/cni/results || [[ $? == 1 ]]; fi
  our_sockets
}

our_sockets() {
  local file address
  for file in "$run"/containerd/io.containerd.runtime.v2.task/k8s.io/*/address; do
    if [[ -f $file ]]; then
      address=$(<"$file")
      address=${address#unix://}
      if [[ -S $address ]]; then echo "$address"; fi
    fi
  done
  if [[ -f $state/before/absent ]] && grep -qxF /var/lib/kubelet "$state/before/absent"; then
    if [[ -S /var/lib/kubelet/device-plugins/kubelet.sock ]]; then echo /var/lib/kubelet/device-plugins/kubelet.sock; fi
  fi
}
