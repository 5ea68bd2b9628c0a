# Images of hub and agent: a static program, the certificates of public CAs, and
# nothing else. "make image" puts together the folder this is built from.
FROM scratch AS base
COPY ca-certificates.crt /etc/ssl/certs/
USER 65532:65532

FROM base AS hub
COPY fleetcast-hub /
ENTRYPOINT ["/fleetcast-hub"]

FROM base AS agent
COPY fleetcast-agent /
# A volume mounted here takes over the owner.
COPY --chown=65532:65532 data /var/lib/fleetcast-agent
ENTRYPOINT ["/fleetcast-agent"]
