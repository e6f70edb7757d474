{{/* Name of all objects of the operator. */}}
{{- define "legion.name" -}}
{{- .Values.fullnameOverride | default (printf "%s-operator" (.Release.Name | trunc 43 | trimSuffix "-")) -}}
{{- end }}

{{/* Labels to select the operator's pods. They must never change between versions. */}}
{{- define "legion.selector" -}}
app.kubernetes.io/name: legion-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* metadata.labels and metadata.annotations of an object. Arguments: root, optional labels and annotations. */}}
{{- define "legion.metadata" -}}
labels:
  {{- include "legion.selector" .root | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/part-of: legion
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Reference of one of our images. Arguments: root, name, digest. */}}
{{- define "legion.image" -}}
{{- $name := .name -}}
{{- with .root.Values.image.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if .digest -}}
{{ $name }}@{{ .digest }}
{{- else -}}
{{ $name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "legion.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "legion.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{/* The namespaces to serve, as a list in JSON. Empty means all. */}}
{{- define "legion.namespaces" -}}
{{- if eq .Values.watch.mode "All" -}}
[]
{{- else if eq .Values.watch.mode "Own" -}}
{{ list .Release.Namespace | toJson }}
{{- else -}}
{{ .Values.watch.namespaces | toJson }}
{{- end -}}
{{- end }}

{{/* Fails on a server without our resources. Without a server (`helm template`) nothing is known. Only a server has
     apiregistration.k8s.io. Helm's own list of versions does not. */}}
{{- define "legion.requireCRDs" -}}
{{- if and .Values.requireCRDs (.Capabilities.APIVersions.Has "apiregistration.k8s.io/v1") -}}
{{- range list "ToolchainIntegration" "Connection" "ModelTraining" -}}
{{- if not ($.Capabilities.APIVersions.Has (printf "legion-platform.org/v1alpha1/%s" .)) -}}
{{- fail (printf "this cluster does not serve the kind %s of legion-platform.org/v1alpha1: install the chart legion-crds of the same version first (`helm upgrade --install legion-crds charts/legion-crds --namespace %s --create-namespace --wait`), or set requireCRDs=false" . $.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
