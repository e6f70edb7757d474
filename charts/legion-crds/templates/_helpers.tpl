{{/* metadata.labels and metadata.annotations of a CRD. */}}
{{- define "legion-crds.metadata" -}}
labels:
  app.kubernetes.io/name: legion-crds
  app.kubernetes.io/instance: {{ .Release.Name }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/part-of: legion
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
  {{- with .Values.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $keep := dict }}
{{- if .Values.keep }}{{ $keep = dict "helm.sh/resource-policy" "keep" }}{{ end }}
{{- with merge $keep .Values.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
