#!/bin/sh
# Starts elbows on the network of the container `holder`. Where one serves there already, the new one takes over from it,
# and no WebSocket is cut. The words are those of `docker run`, the image last: upgrade.sh [OPTION...] IMAGE
set -eu
network=${HOLDER:-holder} volume=${VOLUME:-elbows-run} settings=${SETTINGS:-$(dirname "$0")/elbows.env} left=${WAIT:-300}

old=$(docker ps --quiet --filter "volume=$volume")
case $old in *[!0-9a-f]*) echo "more than one serves at $volume, stop all but one:" $old >&2; exit 1 ;; esac
new=$(docker run --detach --network "container:$network" --volume "$volume:/run/elbows" --env-file "$settings" "$@")
while [ -n "$old" ] && [ -n "$(docker ps --quiet --filter "id=$old")" ]; do
    # It has ended, and the old one serves on.
    [ -n "$(docker ps --quiet --filter "id=$new")" ] || { docker logs "$new"; docker rm "$new"; exit 1; }
    [ "$((left -= 1))" -gt 0 ] || { echo "$old has not ended; both are left (WAIT, HANDOFF_STAY?)" >&2; exit 1; }
    sleep 1
done
# Only now: one that was refused is not to try again, and one that has handed over (exit code 0) is not to come back.
docker update --restart on-failure "$new"
[ -z "$old" ] || docker rm "$old"
