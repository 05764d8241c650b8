# elbows from source, for `docker build` and `docker compose`: a static binary in an empty image.
# `cargo xtask image` makes the same image without the first stage: it builds the binary with the
# toolchain at hand and uses the last stage as it stands below.

FROM rust:1-bookworm AS build
WORKDIR /source
COPY . .
# With a target named, the flags do not reach build scripts and macros, which cannot be static.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" \
        cargo build --release --locked --package elbows --target "$target" \
    && install -D "target/$target/release/elbows" /image/elbows \
    && install -d -m 0700 /directories/elbows

FROM scratch
LABEL org.opencontainers.image.title="elbows" \
    org.opencontainers.image.description="A WebSocket reverse proxy for applications behind load balancers that speak the PROXY protocol" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image/ /
# /run/elbows, for HANDOFF_SOCKET: a new volume that is mounted there becomes what this directory is.
COPY --from=build --chown=65532:65532 /directories/ /run/
# Nobody, by number: there is no /etc/passwd to look a name up in.
USER 65532:65532
# A drain begins; it fits into the 10 s that `docker stop` gives.
STOPSIGNAL SIGTERM
# No EXPOSE: the port is what LISTEN_ON says.
ENTRYPOINT ["/elbows"]
