# Decides which cluster is meant, and where its kubeconfig is. Sourced by the other scripts, after settings.sh.
# shellcheck shell=bash disable=SC2154

# foreign: the one KUBECONFIG names. kind: one in the running Docker engine. own: processes of this machine.
which_cluster() {
  if [[ -n ${KUBECONFIG:-} && $KUBECONFIG != "$pki/admin.kubeconfig" && $KUBECONFIG != "$kind_kubeconfig" ]]; then
    echo foreign
  elif [[ -f $pki/done ]]; then
    echo own
  elif command -v docker >/dev/null && docker info >/dev/null 2>&1; then
    echo kind
  else
    echo own
  fi
}

kubeconfig_of() {
  case $1 in
  foreign) echo "$KUBECONFIG" ;;
  kind) echo "$kind_kubeconfig" ;;
  own) echo "$pki/admin.kubeconfig" ;;
  esac
}
