#!/usr/bin/env bash
# Everything that can be told without running the product: format, clippy, licenses, scripts, the chart, generated files.
set -euo pipefail
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

deny_version=0.20.2
deny=$cache/tools/cargo-deny-$deny_version/bin/cargo-deny

check_dependencies() {
  "$deny" --all-features check licenses bans sources
}

# The database of known flaws is fetched from the internet; where it cannot be, that check alone is left out, and said so.
check_advisories() {
  local log
  log=$(mktemp)
  if "$deny" fetch db >"$log" 2>&1; then
    "$deny" --all-features check --disable-fetch advisories
  else
    say "  SKIPPED: known flaws in dependencies (cargo deny check advisories): their database cannot be fetched from here:"
    say "    $(grep -m 1 -i error "$log")"
  fi
  rm "$log"
}

check_scripts() {
  git ls-files -z --cached --others --exclude-standard '*.sh' .ci/run 'e2e/images/*/start-*' 'e2e/images/*/make-*' |
    xargs -0 shellcheck --external-sources --source-path SCRIPTDIR
}

check_chart() {
  helm lint --strict charts/holdfast
  "$cluster_dir/schemas.sh"
  helm template holdfast charts/holdfast --namespace holdfast-system --kube-version 1.37 |
    kubeconform -strict -summary -schema-location "$cache/schemas/current/{{.ResourceKind}}-{{.ResourceAPIVersion}}.json" \
      -skip CustomResourceDefinition
}

# An older API server knows fewer functions in rules, and some have it that the same rule costs more. 1.29 is the oldest release that the
# chart takes, 1.33 the one that counts the most.
check_definitions() {
  local release
  for release in 1.29 1.33; do "definitions-$release" crds/yaml/*.yaml; done
}

# A page that names tests as its proof must not outlive them.
check_named_tests() {
  local gone
  gone=$(LC_ALL=C comm -23 \
    <(grep '^|' docs/failure-modes.md | grep -oE '\b[a-z0-9]+(_[a-z0-9]+){3,}\b' | grep -v '^holdfast_' | LC_ALL=C sort -u) \
    <(git grep -ohE 'fn [a-z0-9_]+' -- '*.rs' | cut -c 4- | LC_ALL=C sort -u))
  [[ -z $gone ]] || { printf 'docs/failure-modes.md names a test that is not there: %s\n' "$gone" && return 1; }
}

say "Lint:"
"$cluster_dir/packages.sh" lint
"$cluster_dir/build.sh" kubernetes helm kubeconform definitions-1.29 definitions-1.33
if [[ ! -x $deny ]]; then
  step "building cargo-deny $deny_version" -- nice cargo install --locked "cargo-deny@$deny_version" --root "${deny%/bin/*}"
fi
step "format" -- cargo fmt --all --check
step "clippy" -- cargo clippy --workspace --all-targets --locked -- -D warnings
step "licenses, sources and duplicates of dependencies" -- check_dependencies
check_advisories
step "scripts" -- check_scripts
step "tests that the documents name" -- check_named_tests
step "chart" -- check_chart
step "definitions on older API servers" -- check_definitions
step "generated files are current" -- cargo test --quiet --locked --package holdfast-crds --test generated
say "Nothing to complain about."
