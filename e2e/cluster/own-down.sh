#!/usr/bin/env bash
# Ends the cluster of this machine and removes all it left: Pods, processes, mounts, cgroups, network, folders.
# Works whatever of it still runs, and may be run again. The cache of built programs and images stays.
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

stop_parts() {
  # First those that would start something again, the store of it all last. containerd outlives its containers.
  local part
  for part in provisioner dns proxy kubelet scheduler controller-manager api-server etcd; do stop "$part"; done
}

# Through runc, not containerd: that works as well when containerd is dead.
end_containers() {
  local root=$run/runc/k8s.io id
  if [[ -d $root ]]; then
    for id in "$root"/*/; do
      id=$(basename "$id")
      [[ $id != "*" ]] || continue
      runc --root "$root" delete --force "$id"
    done
  fi
}

end_shims() {
  local pid
  for pid in $(our_shims); do
    # It may have ended by itself between the listing and now.
    if [[ -d /proc/$pid ]]; then kill -KILL "$pid" || [[ ! -d /proc/$pid ]]; fi
  done
}

unmount_all() {
  local point
  our_mounts | sort -r | while read -r point; do umount "$point" || umount --lazy "$point"; done
}

remove_cgroups() {
  local path
  our_cgroups | sort -r | while read -r path; do rmdir "$path"; done
}

remove_network() {
  local table
  our_tables | while read -r table; do
    # shellcheck disable=SC2086  # "FAMILY NAME"
    nft delete table $table
  done
  if [[ -n $(our_address) ]]; then ip address del "$node_address/32" dev lo; fi
  # The kernel takes the devices of Pods away some time after their network namespaces, and the routes with them.
  local _
  for _ in {1..300}; do
    if [[ -z $(our_routes) ]]; then return; fi
    sleep 0.1
  done
}

restore_settings() {
  local setting value
  if [[ ! -f $state/before/settings ]]; then return; fi
  while read -r setting value; do echo "$value" >"/proc/sys/$setting"; done <"$state/before/settings"
}

remove_files() {
  local file folder
  while read -r file; do rm -f "$file"; done < <(our_files)
  if [[ -f $state/before/absent ]]; then
    while read -r folder; do
      # Only what is empty: another program may have begun to use it.
      if [[ -d $folder ]]; then find "$folder" -depth -type d -empty -delete; fi
    done <"$state/before/absent"
  fi
  rm -rf --one-file-system "$state" "$run"
}

[[ $(id -u) == 0 ]] || fail "the cluster of this machine was made by root and is removed by root"
if [[ ! -d $state && ! -d $run ]]; then
  say "There is no cluster to remove."
  exit 0
fi
say "Removing the cluster of this machine:"
step "ending the cluster's parts" -- stop_parts
step "ending the Pods' containers" -- end_containers
step "ending containerd" -- stop containerd
step "ending the containers' monitors" -- end_shims
step "unmounting volumes and network namespaces" -- unmount_all
step "removing control groups" -- remove_cgroups
step "removing the network" -- remove_network
step "putting the kernel's settings back" -- restore_settings
step "removing files" -- remove_files
"$here/check-removed.sh"
