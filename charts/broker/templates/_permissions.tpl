{{/* The permissions of brokers/nats, whose package comment explains them. */}}

{{- define "fleetcast.permissions.agent" -}}
publish: [
  "fleetcast.status.*.{{ . }}.*"
  "fleetcast.all-sources.{{ . }}"
  "$JS.API.CONSUMER.CREATE.FLEETCAST_SPEC.agent-{{ . }}-client.fleetcast.spec.{{ . }}.>"
  "$JS.API.CONSUMER.INFO.FLEETCAST_SPEC.agent-{{ . }}-client"
  "$JS.API.CONSUMER.DELETE.FLEETCAST_SPEC.agent-{{ . }}-client"
  "$JS.API.CONSUMER.MSG.NEXT.FLEETCAST_SPEC.agent-{{ . }}-client"
  "$JS.ACK.FLEETCAST_SPEC.agent-{{ . }}-client.>"
  "$JS.API.DIRECT.GET.FLEETCAST_SPEC.fleetcast.spec.{{ . }}.>"
  "$JS.API.DIRECT.GET.FLEETCAST_SPEC.fleetcast.spec.stream"
  "$JS.API.DIRECT.GET.FLEETCAST_STATUS.fleetcast.status.stream"
]
subscribe: [
  "fleetcast.all-clusters.*"
  "_INBOX.agent-{{ . }}-client.>"
]
{{- end }}

{{- define "fleetcast.permissions.source" -}}
publish: [
  "fleetcast.spec.*.{{ . }}.*"
  "fleetcast.all-clusters.{{ . }}"
  "fleetcast.spec.stream"
  "fleetcast.status.stream"
  "$JS.API.STREAM.INFO.FLEETCAST_SPEC"
  "$JS.API.STREAM.INFO.FLEETCAST_STATUS"
  "$JS.API.STREAM.CREATE.FLEETCAST_SPEC"
  "$JS.API.STREAM.CREATE.FLEETCAST_STATUS"
  "$JS.API.STREAM.UPDATE.FLEETCAST_SPEC"
  "$JS.API.STREAM.UPDATE.FLEETCAST_STATUS"
  "$JS.API.CONSUMER.CREATE.FLEETCAST_STATUS.source-{{ . }}.fleetcast.status.{{ . }}.>"
  "$JS.API.CONSUMER.INFO.FLEETCAST_STATUS.source-{{ . }}"
  "$JS.API.CONSUMER.DELETE.FLEETCAST_STATUS.source-{{ . }}"
  "$JS.API.CONSUMER.MSG.NEXT.FLEETCAST_STATUS.source-{{ . }}"
  "$JS.ACK.FLEETCAST_STATUS.source-{{ . }}.>"
  "$JS.API.DIRECT.GET.FLEETCAST_SPEC.fleetcast.spec.stream"
  "$JS.API.DIRECT.GET.FLEETCAST_STATUS.fleetcast.status.stream"
]
subscribe: [
  "fleetcast.all-sources.*"
  "_INBOX.source-{{ . }}.>"
  "$JS.EVENT.ADVISORY.CONSUMER.*.FLEETCAST_SPEC.*"
]
{{- end }}
