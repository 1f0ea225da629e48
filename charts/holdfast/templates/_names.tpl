{{- /* The name of everything the chart makes: that of the release, unless it is installed under a name that says nothing of Holdfast. */ -}}
{{- define "holdfast.name" -}}
{{- if contains "holdfast" .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-holdfast" (.Release.Name | trunc 43 | trimSuffix "-") }}
{{- end -}}
{{- end -}}

{{- define "holdfast.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "holdfast.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | required "serviceAccount.name: name the ServiceAccount, or let the chart create one with serviceAccount.create" }}
{{- end -}}
{{- end -}}

{{- define "holdfast.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "holdfast.selector" -}}
app.kubernetes.io/name: holdfast
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end -}}

{{- define "holdfast.labels" -}}
{{ include "holdfast.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- /* The address of /metrics and the probes: one of IPv6 stands in brackets. */ -}}
{{- define "holdfast.metricsAddress" -}}
{{- $address := .Values.metrics.address | trimPrefix "[" | trimSuffix "]" -}}
{{- if contains ":" $address -}}
[{{ $address }}]:{{ .Values.metrics.port }}
{{- else -}}
{{ $address }}:{{ .Values.metrics.port }}
{{- end -}}
{{- end -}}

{{- /* The affinity of the values, with the image's architectures in each of its terms for nodes: one of the terms has to hold. */ -}}
{{- define "holdfast.affinity" -}}
{{- $affinity := deepCopy .Values.affinity -}}
{{- with .Values.image.architectures -}}
{{- $ours := dict "key" "kubernetes.io/arch" "operator" "In" "values" . -}}
{{- $ofNode := get $affinity "nodeAffinity" | default (dict) -}}
{{- $required := get $ofNode "requiredDuringSchedulingIgnoredDuringExecution" | default (dict) -}}
{{- $terms := list -}}
{{- range (get $required "nodeSelectorTerms" | default (list (dict))) -}}
{{- $expressions := append (get . "matchExpressions" | default (list)) $ours -}}
{{- $terms = append $terms (merge (dict "matchExpressions" $expressions) .) -}}
{{- end -}}
{{- $_ := set $required "nodeSelectorTerms" $terms -}}
{{- $_ := set $ofNode "requiredDuringSchedulingIgnoredDuringExecution" $required -}}
{{- $_ := set $affinity "nodeAffinity" $ofNode -}}
{{- end -}}
{{- toYaml $affinity -}}
{{- end -}}
