{{- define "sallyport.name" -}}
{{- if contains "sallyport" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-sallyport" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "sallyport.selector" -}}
app.kubernetes.io/name: sallyport
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sallyport.labels" -}}
{{ include "sallyport.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* What a pod's securityContext must have for the volumes to be the node's. */ -}}
{{- define "sallyport.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- /* The container, for the pod of this chart or of another one. */ -}}
{{- define "sallyport.container" -}}
name: sallyport
image: {{ if .Values.image.digest }}{{ printf "%s@%s" .Values.image.repository .Values.image.digest | quote }}{{ else }}{{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}{{ end }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [node, create, /etc/sallyport/box.yaml, --foreground]
env:
  - {name: SALLYPORT_HOME, value: /var/lib/sallyport}
  - {name: SALLYPORT_LOG_LEVEL, value: {{ .Values.logLevel | quote }}}
{{- with .Values.service.ports }}
ports:
  {{- range . }}
  - {name: {{ .name }}, containerPort: {{ default .port .targetPort }}}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
# The status address is for this pod alone, so the node is asked by its own program.
startupProbe:
  exec: {command: [/usr/bin/sallyport, node, ready, --alive]}
  periodSeconds: 2
  timeoutSeconds: 10
  failureThreshold: 30
readinessProbe:
  exec: {command: [/usr/bin/sallyport, node, ready]}
  periodSeconds: 10
  timeoutSeconds: 10
livenessProbe:
  exec: {command: [/usr/bin/sallyport, node, ready, --alive]}
  periodSeconds: 20
  timeoutSeconds: 10
lifecycle:
  preStop:
    exec: {command: [/usr/bin/sallyport, node, stop, --drain, {{ .Values.drainSeconds }}s]}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - {name: sallyport-config, mountPath: /etc/sallyport, readOnly: true}
  - {name: sallyport-state, mountPath: /var/lib/sallyport}
  {{- if .Values.ticket.existingSecret }}
  - {name: sallyport-ticket, mountPath: /run/sallyport, readOnly: true}
  {{- end }}
{{- end }}

{{- define "sallyport.volumes" -}}
- name: sallyport-config
  configMap: {name: {{ include "sallyport.name" . }}}
- name: sallyport-state
  {{- if not .Values.persistence.enabled }}
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
  {{- else }}
  persistentVolumeClaim: {claimName: {{ default (include "sallyport.name" .) .Values.persistence.existingClaim }}}
  {{- end }}
{{- if .Values.ticket.existingSecret }}
- name: sallyport-ticket
  secret:
    secretName: {{ .Values.ticket.existingSecret }}
    optional: true # it is needed once
    defaultMode: 0440
    items: [{key: {{ .Values.ticket.key | quote }}, path: ticket}]
{{- end }}
{{- end }}
