# Lists what the cluster puts on the machine, each kind by a mark that only it bears. Sourced by the other scripts.
# shellcheck shell=bash disable=SC2154

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

our_address() { ip -o address show | awk -v address="$node_address/32" '$4 == address'; }

# The kubelet links logs into a folder that cannot be chosen, and the network plugins keep their answers in another.
our_files() {
  if [[ -d /var/log/containers ]]; then find /var/log/containers -type l -lname "$state/*"; fi
  if [[ -d /var/lib/cni/results ]]; then find /var/lib/cni/results -type f -name "$network_name-*"; fi
}
