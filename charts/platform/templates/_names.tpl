{{/* Labels of every object of a part. Takes {root, part}. */}}
{{- define "platform.labels" -}}
app.kubernetes.io/name: {{ .part }}
app.kubernetes.io/part-of: {{ .root.Values.platform }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
idi.dev/environment: {{ .root.Values.environment }}
{{- end }}

{{/* The restricted profile of pod security, for a pod and for each container. */}}
{{- define "platform.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "platform.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* How a part's pods are placed and pulled. Takes {root, part, own}: own are the part's values. */}}
{{- define "platform.placed" -}}
{{- $priority := .own.priorityClassName }}
{{- if and (not $priority) .root.Values.priorityClasses.create }}{{ $priority = printf "%s-platform" .root.Release.Namespace }}{{ end -}}
enableServiceLinks: false
securityContext:
  {{- include "platform.podSecurity" . | nindent 2 }}
{{- with $priority }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
affinity:
  # Not as a constraint of topology: beside another one the scheduler minds it only on nodes that have both labels, and
  # many a node is in no zone.
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {idi.dev/part: {{ .part }}}
  {{- with .own.pool }}
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - {key: idi.dev/pool, operator: In, values: [{{ . | toJson }}]}
  {{- end }}
{{- with .own.pool }}
tolerations:
  - {key: idi.dev/pool, operator: Equal, value: {{ . | toJson }}, effect: NoSchedule}
{{- end }}
topologySpreadConstraints:
  - topologyKey: topology.kubernetes.io/zone
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {idi.dev/part: {{ .part }}}
{{- end }}

{{/* DNS, as a rule of egress. */}}
{{- define "platform.dns" -}}
{{- if or .dns.namespaces .dns.cidrs }}
- to:
    {{- range sortAlpha .dns.namespaces }}
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ . }}}
    {{- end }}
    {{- range sortAlpha .dns.cidrs }}
    - ipBlock: {cidr: {{ . | toJson }}}
    {{- end }}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end }}
{{- end }}
