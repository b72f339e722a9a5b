#!/bin/sh
# Runs the gadgets for all namespaces and prints their events, a line of JSON each: gadgets.sh | vector --config ../shipper/stdin.yaml
#
# When one gadget ends, all end with it: a dimension must not go blind unnoticed. Start it again by whatever runs it. A line of more than 4 KiB may be
# mixed with another's; it is then counted as malformed.
set -eu
pids=
run() {
  kubectl gadget run "$@" --all-namespaces --output json &
  pids="$pids $!"
}
stop() {
  trap - EXIT
  # shellcheck disable=SC2086 # one word for each process
  kill $pids 2>/dev/null || true
}
trap stop EXIT
trap 'exit 1' INT TERM
run trace_exec:latest --paths
for gadget in trace_open trace_tcp trace_bind trace_dns trace_capabilities trace_mount audit_seccomp; do
  run "$gadget:latest"
done
while sleep 1; do
  for pid in $pids; do
    kill -0 "$pid" 2>/dev/null || { echo "gadgets.sh: a gadget has ended" >&2; exit 1; }
  done
done
