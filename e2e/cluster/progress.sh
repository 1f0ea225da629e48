# Tells what is being done and how long it took. Sourced by the other scripts.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "error: $*"
  exit 1
}

duration() {
  local seconds=$1
  if ((seconds >= 60)); then printf '%dm%02ds' $((seconds / 60)) $((seconds % 60)); else printf '%ds' "$seconds"; fi
}

# step WORDS -- COMMAND…: runs it with its output in a log, says every 20 s that it is still at it
# and what it said last, and shows the whole log if it fails.
step() {
  local words=$1
  shift 2
  local log started=$SECONDS told=$SECONDS job status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 &
  job=$!
  while kill -0 "$job" 2>/dev/null; do
    if ((SECONDS - told >= 20)); then
      told=$SECONDS
      say "  … $words ($(duration $((SECONDS - started)))) $(tail -n 1 "$log" | tr -s '[:space:]' ' ' | cut -c 1-60)"
    fi
    sleep 0.1
  done
  wait "$job" || status=$?
  if ((status != 0)); then
    cat "$log" >&2
    rm -f "$log"
    fail "$words: failed with status $status after $(duration $((SECONDS - started)))"
  fi
  rm -f "$log"
  say "  $words: $(duration $((SECONDS - started)))"
}

# wait_until WORDS SECONDS COMMAND…: polls a condition; returns 1 when it does not hold in time.
wait_until() {
  local words=$1 limit=$2
  shift 2
  local started=$SECONDS told=$SECONDS
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS - started >= limit)); then
      say "  $words: not after $(duration "$limit")"
      return 1
    fi
    if ((SECONDS - told >= 20)); then
      told=$SECONDS
      say "  … waiting: $words ($(duration $((SECONDS - started))))"
    fi
    sleep 0.2
  done
  say "  $words: $(duration $((SECONDS - started)))"
}
