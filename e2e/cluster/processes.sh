# Starts processes that outlive this shell, and ends exactly those it started. Sourced by the other scripts.
# shellcheck shell=bash disable=SC2154,SC2164
# A process is recorded as "PID START": with the time it started, a number reused after a crash or a reboot is told apart.

process_start() {
  local stat
  # The program's name, in parentheses, may hold spaces: fields are counted from the last parenthesis.
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  # shellcheck disable=SC2086
  set -- $stat
  [[ $1 != Z ]] || return 1
  echo "${20}"
}

is_running() {
  local pid start
  [[ -f $run/$1.pid ]] || return 1
  read -r pid start <"$run/$1.pid" || return 1
  [[ $(process_start "$pid") == "$start" ]]
}

# start NAME COMMAND…: does nothing when it runs already.
start() {
  local name=$1 pid
  shift
  if is_running "$name"; then return; fi
  (
    # An inherited descriptor would keep a caller's pipe or lock open for as long as the cluster lives.
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      if ((fd > 2)); then eval "exec $fd>&-"; fi
    done
    cd "$run"
    exec setsid "$@" </dev/null >>"$logs/$name.log" 2>&1
  ) &
  pid=$!
  disown "$pid"
  echo "$pid $(process_start "$pid")" >"$run/$name.pid"
}

# stop NAME: asks, then insists after ten seconds.
stop() {
  local pid _ i
  if is_running "$1"; then
    read -r pid _ <"$run/$1.pid"
    kill -TERM "$pid"
    for ((i = 0; i < 100; i++)); do
      is_running "$1" || break
      sleep 0.1
    done
    if is_running "$1"; then kill -KILL "$pid"; fi
  fi
  rm -f "$run/$1.pid"
}
