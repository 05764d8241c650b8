#!/bin/sh
# Starts elbows on the network of the container `holder`. Where one serves there already, the new one takes over from it,
# and no WebSocket is cut. The words are those of `docker run`, the image last: upgrade.sh [OPTION...] IMAGE
set -eu
network=${HOLDER:-holder} volume=${VOLUME:-elbows-run} settings=${SETTINGS:-$(dirname "$0")/elbows.env} left=${WAIT:-300}
runs() { [ -n "$1" ] && [ -n "$(docker ps --quiet --filter "id=$1")" ]; }
give_up() { docker logs "$new"; docker rm "$new"; runs "$old" || echo "nobody serves at $volume" >&2; exit 1; }

old=$(docker ps --quiet --filter "label=elbows=$volume")
case $old in *[!0-9a-f]*) echo "more than one serves at $volume, stop all but one:" $old >&2; exit 1 ;; esac
new=$(docker run --detach --network "container:$network" --volume "$volume:/run/elbows" --label "elbows=$volume" \
    --env-file "$settings" "$@")
while runs "$old" && [ "$((left -= 1))" -gt 0 ]; do runs "$new" || give_up; sleep 1; done
# It says when it serves. With a LOG that leaves that out, it serves where it still runs after five seconds.
for _ in 1 2 3 4 5; do runs "$new" || give_up; docker logs "$new" 2>&1 | grep -q 'listening on' && break; sleep 1; done
# Only now: one that was refused is not to try again, and one that has handed over (exit code 0) is not to come back.
docker update --restart on-failure "$new"
runs "$new" || give_up
if runs "$old"; then echo "$old has not ended; both are left (WAIT, HANDOFF_STAY?)" >&2; exit 1; fi
[ -z "$old" ] || docker rm "$old"
