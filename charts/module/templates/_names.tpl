{{/* Labels of every object. */}}
{{- define "module.labels" -}}
app.kubernetes.io/name: {{ .Values.module }}
app.kubernetes.io/part-of: {{ .Values.platform }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
idi.dev/environment: {{ .Values.environment }}
idi.dev/module: {{ .Values.module }}
{{- end }}

{{/* A ConfigMap is named by what is in it: another content is another name, so its pods are rolled, and one that is
     still running can be started again with the content it knows. Takes {module, config}. */}}
{{- define "module.config" -}}
{{ .module }}-config-{{ .config | toJson | sha256sum | trunc 10 }}
{{- end }}

{{/* What the chart refuses beyond the shape of each value: said here in one place, in words. */}}
{{- define "module.check" -}}
{{- with .Values }}
{{- if and .storage (or .scale .slots.candidate) }}
{{- fail (printf "%s has storage, so it may never have two writers: scale and slots.candidate must be null." .module) }}
{{- end }}
{{- if and .storage (gt (int .slots.stable.replicas) 1) }}
{{- fail (printf "%s has storage, so it may never have two writers: slots.stable.replicas must be 0 or 1." .module) }}
{{- end }}
{{- if .scale }}
{{- if lt (int .scale.max) (int .scale.min) }}
{{- fail (printf "scale.max is %d, below scale.min, which is %d." (int .scale.max) (int .scale.min)) }}
{{- end }}
{{- if not (dig "requests" "cpu" nil .resources) }}
{{- fail "scale is a share of the CPU request: resources.requests.cpu has to be given." }}
{{- end }}
{{- end }}
{{- end }}
{{- if ne .Release.Name .Values.module }}
{{- fail (printf "the release is called %s and the module %s: a module's release is named as the module." .Release.Name .Values.module) }}
{{- end }}
{{- end }}
