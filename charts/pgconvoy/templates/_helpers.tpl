{{/* Names: the release's, which is usually "pgconvoy". */}}
{{- define "pgconvoy.name" -}}
{{- if contains "pgconvoy" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-pgconvoy" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "pgconvoy.selector" -}}
app.kubernetes.io/name: pgconvoy-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pgconvoy.labels" -}}
{{ include "pgconvoy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: pgconvoy
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Roles of the whole cluster need names of their own for each release. */}}
{{- define "pgconvoy.clusterName" -}}
{{ include "pgconvoy.name" . }}-{{ .Release.Namespace }}
{{- end }}

{{/* image reference: (dict "image" values "root" root) */}}
{{- define "pgconvoy.image" -}}
{{ .image.registry }}/{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* What the operator may do where replica sets live. It gives the agents their rights, so it must hold those too. */}}
{{- define "pgconvoy.rules" -}}
- apiGroups: [pgconvoy.dev]
  resources: [pgreplicasets]
  verbs: [get, list, watch, patch]
- apiGroups: [pgconvoy.dev]
  resources: [pgreplicasets/status]
  verbs: [get, patch, update]
- apiGroups: [pgconvoy.dev]
  resources: [pgarchives]
  verbs: [get, list, watch]
- apiGroups: [pgconvoy.dev]
  resources: [pgsnapshotschedules]
  verbs: [get, list, watch]
- apiGroups: [pgconvoy.dev]
  resources: [pgsnapshotschedules/status]
  verbs: [patch]
# Schedules make them, and take them away beyond their history; the agents read them.
- apiGroups: [pgconvoy.dev]
  resources: [pgsnapshots]
  verbs: [get, list, watch, create, delete]
# For the agents.
- apiGroups: [pgconvoy.dev]
  resources: [pgarchives/status]
  verbs: [patch]
- apiGroups: [pgconvoy.dev]
  resources: [pgsnapshots/status]
  verbs: [update, patch]
# What the agents may do with requests, which whoever lets them must be allowed too.
- apiGroups: [pgconvoy.dev]
  resources: [pgrequests]
  verbs: [get, list, watch]
- apiGroups: [pgconvoy.dev]
  resources: [pgrequests/status]
  verbs: [patch]
# Owner references that block deletion need this where the API server asks for it (OpenShift).
- apiGroups: [pgconvoy.dev]
  resources: [pgreplicasets/finalizers]
  verbs: [update]
# A term is made once and never deleted; the garbage collector takes it with its set. update: for the agents.
- apiGroups: [pgconvoy.dev]
  resources: [pgterms]
  verbs: [get, list, watch, create, update]
- apiGroups: [""]
  resources: [pods, persistentvolumeclaims, secrets, configmaps, services, serviceaccounts]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch, create, patch, update, delete]
# OpenShift asks for it when a slice points to pods.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices/restricted]
  verbs: [create, update]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
