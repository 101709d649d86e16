# syntax=docker/dockerfile:1
# viaflux as a small image that runs as a plain user and needs no writable file system beside its state.
#   docker build -t viaflux .
#   docker run --rm -p 127.0.0.1:8080:8080 -e VIAFLUX__SERVER__ALLOW_ANONYMOUS=true viaflux demo --listen 0.0.0.0:8080 --no-open

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The image brings gcc, g++, make and perl: what librdkafka and the vendored OpenSSL of `tls` need.
# The checkout's history stays outside: who builds the image says what it is made of.
ARG REVISION=
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    VIAFLUX_REVISION="${REVISION}" cargo build --release --locked --features tls \
    && install -D target/release/viaflux /out/viaflux

FROM debian:bookworm-slim
ARG REVISION=unknown
LABEL org.opencontainers.image.title="viaflux" \
      org.opencontainers.image.description="Streaming traffic analytics" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
# Trust anchors for brokers that speak TLS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin viaflux \
    # A volume mounted here for the first time takes over the owner.
    && install -d -o viaflux -g viaflux /var/lib/viaflux /srv/city
COPY --from=build /out/viaflux /usr/local/bin/viaflux
USER 10001:10001
WORKDIR /var/lib/viaflux
ENV VIAFLUX__LOG__FORMAT=json
EXPOSE 8080 9470
# Docker's signal reaches the program itself, which then writes its last checkpoint.
STOPSIGNAL SIGTERM
ENTRYPOINT ["viaflux"]
CMD ["run", "-c", "/etc/viaflux/viaflux.toml"]
