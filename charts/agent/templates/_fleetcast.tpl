{{/* What the charts of hub and agent have in common. Both have the same file. */}}

{{- define "fleetcast.name" -}}
{{ default (printf "fleetcast-%s" .Chart.Name) .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "fleetcast.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "fleetcast.name" .) .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name (include "fleetcast.name" .) | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "fleetcast.selector" -}}
app.kubernetes.io/name: {{ include "fleetcast.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fleetcast.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "fleetcast.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: fleetcast
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "fleetcast.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "fleetcast.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ required "serviceAccount.name: name the service account to use, or set serviceAccount.create" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{- define "fleetcast.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Fields of the pod that the values set as they are. */}}
{{- define "fleetcast.scheduling" -}}
{{- range $field := list "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with index $.Values $field }}
{{ $field }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "fleetcast.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "fleetcast.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Life is the process alone. Nothing is restarted because the broker is away. */}}
{{- define "fleetcast.probes" -}}
startupProbe:
  httpGet:
    path: /livez
    port: {{ . }}
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet:
    path: /livez
    port: {{ . }}
  periodSeconds: 20
  timeoutSeconds: 5
readinessProbe:
  httpGet:
    path: /readyz
    port: {{ . }}
  periodSeconds: 10
  timeoutSeconds: 5
{{- end }}

{{- define "fleetcast.brokerURL" -}}
{{ required "broker.url: say where the broker is, for example tls://broker.example.com:4222 or mqtts://broker.example.com:8883" .Values.broker.url }}
{{- end }}

{{- define "fleetcast.plaintextBroker" -}}
{{ if regexMatch "^(mqtt|nats)://" .Values.broker.url }}true{{ end }}
{{- end }}

{{/* The ports of the broker's servers, as a list of rules. */}}
{{- define "fleetcast.brokerPorts" -}}
{{- $scheme := regexFind "^[a-z]+" .Values.broker.url }}
{{- $default := get (dict "mqtt" "1883" "mqtts" "8883" "nats" "4222" "tls" "4222") $scheme }}
{{- $ports := list }}
{{- range splitList "," (regexReplaceAll "^[a-z]+://|[/?].*$" .Values.broker.url "") }}
{{- $ports = append $ports (regexFind ":[0-9]+$" . | trimPrefix ":" | default $default) }}
{{- end }}
{{- range compact (uniq $ports) }}
- protocol: TCP
  port: {{ . }}
{{- end }}
{{- end }}

{{- define "fleetcast.brokerArgs" -}}
- {{ printf "--broker=%s" (include "fleetcast.brokerURL" .) | quote }}
{{- with .Values.broker }}
{{- with .clientID }}
- {{ printf "--broker-client-id=%s" . | quote }}
{{- end }}
{{- if .ca.existingSecret }}
- --broker-ca-file=/etc/fleetcast/broker/ca.crt
{{- end }}
{{- if .clientCertificate.existingSecret }}
- --broker-cert-file=/etc/fleetcast/broker/tls.crt
- --broker-key-file=/etc/fleetcast/broker/tls.key
{{- end }}
{{- if .password.existingSecret }}
- --broker-password-file=/etc/fleetcast/broker/password
{{- end }}
{{- if .natsCredentials.existingSecret }}
- --broker-credentials-file=/etc/fleetcast/broker/nats.creds
{{- end }}
{{- end }}
{{- end }}

{{- define "fleetcast.brokerEnv" -}}
{{- with .Values.broker.password }}
{{- if .existingSecret }}
- name: FLEETCAST_BROKER_USERNAME
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .usernameKey | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* The secrets for the broker, which the program reads again when they change. */}}
{{- define "fleetcast.brokerSecrets" -}}
{{- with .Values.broker }}
{{- with .ca }}
{{- if .existingSecret }}
- secret:
    name: {{ .existingSecret }}
    items:
      - {key: {{ .key | quote }}, path: ca.crt}
{{- end }}
{{- end }}
{{- with .clientCertificate }}
{{- if .existingSecret }}
- secret:
    name: {{ .existingSecret }}
    items:
      - {key: {{ .certKey | quote }}, path: tls.crt}
      - {key: {{ .keyKey | quote }}, path: tls.key}
{{- end }}
{{- end }}
{{- with .password }}
{{- if .existingSecret }}
- secret:
    name: {{ .existingSecret }}
    items:
      - {key: {{ .passwordKey | quote }}, path: password}
{{- end }}
{{- end }}
{{- with .natsCredentials }}
{{- if .existingSecret }}
- secret:
    name: {{ .existingSecret }}
    items:
      - {key: {{ .key | quote }}, path: nats.creds}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Egress to DNS, the API server and the broker, and no other. */}}
{{- define "fleetcast.egress" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - protocol: TCP
      port: {{ . }}
    {{- end }}
    {{- with include "fleetcast.brokerPorts" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}
