# Where Debian's packages come from. Sourced by the scripts that need it, after progress.sh; does nothing by itself.
# shellcheck shell=bash

# The mirror that this machine's apt is configured with.
debian_mirror() {
  local mirror
  # shellcheck disable=SC2016  # apt expands it
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Component: main' 'Label: Debian' | sort -u | head -n 1)
  [[ -n $mirror ]] || fail "apt knows no Debian mirror; run apt-get update"
  echo "$mirror"
}
