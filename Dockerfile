# The image of every Syncline service: one static binary, no shell, not root.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/syncline ./cmd/syncline \
    && mkdir /out/data

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/syncline /usr/local/bin/syncline
# A volume that is mounted here for the first time takes this directory's owner over.
COPY --from=build --chown=65532:65532 /out/data /var/lib/syncline
USER 65532:65532
# Reached from other containers, so not on the loopback address that is the default elsewhere.
ENV SYNCLINE_GRPC=0.0.0.0:7400 SYNCLINE_HTTP=0.0.0.0:7480
EXPOSE 7400 7480
VOLUME /var/lib/syncline
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
    CMD ["/usr/local/bin/syncline", "health", "--addr", "127.0.0.1:7400"]
ENTRYPOINT ["/usr/local/bin/syncline"]
CMD ["--help"]
