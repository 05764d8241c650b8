#!/bin/sh
# Starts elbows on the network of the container `holder`. Where one serves there already, the new one takes over from it,
# and no WebSocket is cut. The words are those of `docker run`, the image last: upgrade.sh [OPTION...] IMAGE
set -eu
network=${HOLDER:-holder} volume=${VOLUME:-elbows-run} settings=${SETTINGS:-$(dirname "$0")/elbows.env}

old=$(docker ps --quiet --filter "volume=$volume")
new=$(docker run --detach --network "container:$network" --volume "$volume:/run/elbows" --env-file "$settings" "$@")
while [ -n "$old" ] && [ -n "$(docker ps --quiet --filter "id=$old")" ]; do
    # It has ended, and the old one serves on.
    [ -n "$(docker ps --quiet --filter "id=$new")" ] || { docker logs "$new"; docker rm "$new"; exit 1; }
    sleep 1
done
# Only now: one that was refused is not to try again, and one that has handed over (exit code 0) is not to come back.
docker update --restart on-failure "$new"
[ -z "$old" ] || docker rm "$old"
