# What the demo and the drill share: chapters with their time, commands shown as a person types them, and the namespace `shop`.
# Sourced by both, after scripts/environment.sh; does nothing by itself.
# shellcheck shell=bash disable=SC2034,SC2154

manifests=e2e/images/manifests
# Marks the namespaces as made here: only such are removed again.
mark=holdfast.dev/demo
test_images=${TEST_IMAGES:-localhost/holdfast-test}
demo_started=$SECONDS

# chapter WORDS: what comes next; and how long the chapter before it took.
chapter_started=$SECONDS
chapter() {
  say ""
  say "== $* (at $(duration $((SECONDS - demo_started))))"
  chapter_started=$SECONDS
}
took() { say "   ($(duration $((SECONDS - chapter_started))))"; }

# show COMMAND…: prints a command as a person would type it, and its output.
show() {
  say "\$ $*"
  "$@"
}

k() { kubectl --namespace shop "$@"; }

# Asked of the server itself, over its own socket.
sql() { k exec --stdin deployment/postgres -- psql --host /tmp --username postgres --no-psqlrc --quiet --set ON_ERROR_STOP=1 --tuples-only --no-align "$@"; }

# apply_to NAMESPACE FILE…: with the test images of this run.
apply_to() {
  local namespace=$1 file
  shift
  for file in "$@"; do
    sed "s#localhost/holdfast-test/#$test_images/#" "$file" | kubectl --namespace "$namespace" apply --filename - >/dev/null
  done
}

# make_namespace NAME: anew, and held to the strictest Pod security; one that was not made here is left alone.
make_namespace() {
  local name=$1 marked
  if kubectl get namespace "$name" >/dev/null 2>&1; then
    marked=$(kubectl get namespace "$name" --output "jsonpath={.metadata.labels.holdfast\.dev/demo}")
    [[ $marked == true ]] || fail "there is a namespace $name that no demo made. The demo needs that name: remove the namespace if nobody needs it."
    step "removing namespace $name of the last demo" -- kubectl delete namespace "$name" --wait --timeout 120s
  fi
  kubectl create namespace "$name" >/dev/null
  kubectl label namespace "$name" "$mark=true" pod-security.kubernetes.io/enforce=restricted >/dev/null
}

ended() { [[ $(k get "$1" --output 'jsonpath={.status.phase}') =~ ^(Completed|Failed)$ ]]; }

# await_completed KIND/NAME SECONDS
await_completed() {
  local phase
  if ! wait_until "$1 ended" "$2" ended "$1"; then
    k describe "$1" >&2
    fail "$1 did not end in time"
  fi
  phase=$(k get "$1" --output 'jsonpath={.status.phase}')
  if [[ $phase != Completed ]]; then
    k describe "$1" >&2
    fail "$1: $phase"
  fi
}
