{{/* The restricted profile of pod security, for the pod and for each container. */}}
{{- define "module.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "module.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What the agent is told, as JSON. */}}
{{- define "module.agent" -}}
{{- $ports := dict }}
{{- range $at, $port := .Values.ports }}{{- $_ := set $ports $port.name (add 20001 $at) }}{{- end }}
{{- dict "module" .Values.module "grace_s" .Values.grace_s "readiness" .Values.readiness "ports" $ports | toJson }}
{{- end }}

{{/* The template of a slot's pods. Takes {root, name, slot}. */}}
{{- define "module.pod" -}}
{{- $values := .root.Values }}
{{- $slot := .slot -}}
metadata:
  labels:
    {{- include "module.labels" .root | nindent 4 }}
    idi.dev/slot: {{ .name }}
    idi.dev/revision: {{ $slot.revision | quote }}
  annotations:
    kubectl.kubernetes.io/default-container: module
    {{- with $slot.spec }}
    idi.dev/spec: {{ . | toJson }}
    {{- end }}
spec:
  serviceAccountName: idi-{{ $values.module }}
  automountServiceAccountToken: false
  # Their variables would be mixed with the module's own.
  enableServiceLinks: false
  # The barrier (10 s at most), the drain, the module's grace, and a moment for the sidecar after it.
  terminationGracePeriodSeconds: {{ add 15 (ceil $values.drain_s | int) (ceil $values.grace_s | int) }}
  securityContext:
    {{- include "module.podSecurity" . | nindent 4 }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  affinity:
    # Not as a constraint of topology: beside another one the scheduler minds it only on nodes that have both labels,
    # and many a node is in no zone.
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              # Of this revision alone, or those of the one before would decide where there is room.
              matchLabels: {idi.dev/module: {{ $values.module }}, idi.dev/slot: {{ $.name }}, idi.dev/revision: {{ $slot.revision | quote }}}
    {{- with $values.pool }}
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
          - matchExpressions:
              - {key: idi.dev/pool, operator: In, values: [{{ . | toJson }}]}
    {{- end }}
  {{- with $values.pool }}
  tolerations:
    - {key: idi.dev/pool, operator: Equal, value: {{ . | toJson }}, effect: NoSchedule}
  {{- end }}
  {{- with $values.topologySpread }}
  topologySpreadConstraints:
    {{- range . }}
    - topologyKey: {{ .topologyKey }}
      maxSkew: {{ .maxSkew | default 1 | int }}
      whenUnsatisfiable: {{ .whenUnsatisfiable | default "ScheduleAnyway" }}
      labelSelector:
        matchLabels: {idi.dev/module: {{ $values.module }}, idi.dev/slot: {{ $.name }}}
    {{- end }}
  {{- end }}
  initContainers:
    # Native: it is there before the module and after it.
    - name: sidecar
      restartPolicy: Always
      image: {{ $values.sidecar.image | toJson }}
      imagePullPolicy: {{ $values.imagePullPolicy }}
      command: [python, -m, idi.agent]
      env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: IDI_CONTROL, value: {{ $values.control.address | default (printf "https://control.%s.svc:8443" .root.Release.Namespace) | toJson }}}
        - {name: IDI_DRAIN_S, value: {{ $values.drain_s | toString | quote }}}
        - {name: IDI_AGENT, value: {{ include "module.agent" .root | replace "$(" "$$(" | toJson }}}
      ports:
        - {name: agent, containerPort: 20000}
        {{- range $at, $port := $values.ports }}
        - {containerPort: {{ add 20101 $at }}}
        {{- end }}
      # The module starts once the agent and its Envoy are there; the pod is ready once the module is and has traffic.
      startupProbe:
        httpGet: {path: /live, port: agent}
        periodSeconds: 1
        timeoutSeconds: 2
        failureThreshold: 120
      readinessProbe:
        httpGet: {path: /ready, port: agent}
        periodSeconds: 1
        timeoutSeconds: 2
        failureThreshold: 3
      livenessProbe:
        httpGet: {path: /live, port: agent}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      resources:
        {{- toYaml $values.sidecar.resources | nindent 8 }}
      securityContext:
        {{- include "module.security" . | nindent 8 }}
      volumeMounts:
        - {name: proxy, mountPath: /etc/idi/proxy, readOnly: true}
        - {name: token, mountPath: /var/run/idi/token, readOnly: true}
        - {name: run, mountPath: /run/idi}
        - {name: sidecar-tmp, mountPath: /tmp}
  containers:
    - name: module
      image: {{ $slot.image | toJson }}
      imagePullPolicy: {{ $values.imagePullPolicy }}
      {{- with $slot.command }}
      command: {{ . | toJson }}
      {{- end }}
      env:
        # First, so that the values after it may refer to it.
        - {name: IDI_INSTANCE, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: PORT, value: "20001"}
        {{- if $values.storage }}
        - {name: IDI_DATA_DIR, value: /data}
        {{- end }}
        {{- range $slot.env }}
        - {name: {{ .name }}, value: {{ .value | toJson }}}
        {{- end }}
      {{- if or $slot.config $slot.secrets }}
      envFrom:
        {{- with $slot.config }}
        - configMapRef: {name: {{ include "module.config" (dict "module" $values.module "config" .) }}}
        {{- end }}
        {{- with dig "env" nil ($slot.secrets | default dict) }}
        - secretRef: {name: {{ . }}}
        {{- end }}
      {{- end }}
      lifecycle:
        # The agent answers once no proxy sends anything here any more; SIGTERM follows.
        preStop: {httpGet: {path: /stopping, port: 20000}}
      resources:
        {{- $resources := deepCopy $values.resources }}
        {{- with $values.gpu }}
        {{- range $kind := list "limits" "requests" }}
        {{- $_ := set $resources $kind (merge (dict $values.gpu.resource (int $values.gpu.count)) (get $resources $kind | default dict)) }}
        {{- end }}
        {{- end }}
        {{- toYaml $resources | nindent 8 }}
      securityContext:
        {{- include "module.security" . | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if dig "files" nil ($slot.secrets | default dict) }}
        - {name: secrets, mountPath: /var/run/idi/secrets, readOnly: true}
        {{- end }}
        {{- range $at, $mount := $slot.mounts }}
        - {name: mount-{{ $at }}, mountPath: {{ $mount.path }}, readOnly: true}
        {{- end }}
        {{- if $values.storage }}
        - {name: data, mountPath: /data}
        {{- end }}
  volumes:
    - {name: proxy, configMap: {name: idi-proxy}}
    - name: token
      projected:
        sources:
          - serviceAccountToken: {audience: idi, expirationSeconds: 600, path: token}
    # Sockets and keys of the sidecar never reach a disk; what the module writes to /tmp may, and so does not count as
    # its memory.
    - {name: run, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
    - {name: sidecar-tmp, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
    - {name: tmp, emptyDir: {sizeLimit: {{ $values.temporary }}}}
    {{- with dig "files" nil ($slot.secrets | default dict) }}
    # kubelet keeps it in memory.
    - {name: secrets, secret: {secretName: {{ . }}, defaultMode: 288}}
    {{- end }}
    {{- range $at, $mount := $slot.mounts }}
    - {name: mount-{{ $at }}, secret: {secretName: {{ $mount.secret }}, defaultMode: 288}}
    {{- end }}
    {{- if $values.storage }}
    - {name: data, persistentVolumeClaim: {claimName: {{ $values.module }}-data}}
    {{- end }}
{{- end }}
