# What every script here needs: where things are, how progress is told. Sourced by them; does nothing by itself.
# shellcheck shell=bash disable=SC2034,SC2164

scripts_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../e2e/cluster/settings.sh
source "$scripts_dir/../e2e/cluster/settings.sh"
# shellcheck source=../e2e/cluster/progress.sh
source "$scripts_dir/../e2e/cluster/progress.sh"
cd "$repository_dir"

# The image as Helm wants it: what comes before the last colon, and after it.
image=${IMAGE:-localhost/holdfast:dev}
image_repository=${image%:*}
image_tag=${image##*:}

release=holdfast
release_namespace=holdfast-system

# Names the running cluster to kubectl, helm and the tests.
use_cluster() {
  KUBECONFIG=$("$cluster_dir/kubeconfig.sh")
  export KUBECONFIG
}
