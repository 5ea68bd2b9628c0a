{{- define "fleetcast.natsConfig" -}}
port: 4222
http_port: 8222
max_payload: {{ .Values.config.maxPayload }}
jetstream {
  store_dir: "/data"
  # What is confirmed is on the disk.
  sync_interval: always
}
{{- if .Values.tls.existingSecret }}
tls {
  cert_file: "/etc/nats-tls/tls.crt"
  key_file: "/etc/nats-tls/tls.key"
  ca_file: "/etc/nats-tls/ca.crt"
  {{- if not .Values.auth.existingSecret }}
  verify_and_map: true
  {{- else if ne .Values.auth.clientCertificates "none" }}
  {{ .Values.auth.clientCertificates }}: true
  {{- end }}
}
{{- else if not .Values.allowInsecure }}
{{- fail "tls.existingSecret: name a Secret with tls.crt, tls.key and ca.crt, or set allowInsecure to try it without" }}
{{- end }}
{{- if .Values.auth.existingSecret }}
include "auth/auth.conf"
{{- else if .Values.tls.existingSecret }}
authorization {
  users: [
    {{- range .Values.sources }}
    {
      user: "CN=source-{{ . }}"
      permissions {
        {{- include "fleetcast.permissions.source" . | nindent 8 }}
      }
    }
    {{- end }}
    {{- range .Values.clusters }}
    {{- if and (hasPrefix "source-" .) (has (trimPrefix "source-" .) $.Values.sources) }}
    {{- fail (printf "clusters: %s would have the certificate of a source" .) }}
    {{- end }}
    {
      user: "CN={{ . }}"
      permissions {
        {{- include "fleetcast.permissions.agent" . | nindent 8 }}
      }
    }
    {{- end }}
  ]
}
{{- end }}
{{- with .Values.config.extra }}
{{ . }}
{{- end }}
{{- end }}
