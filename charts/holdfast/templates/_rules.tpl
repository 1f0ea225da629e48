{{- /*
What the controller may do in the namespaces it looks after. No Secrets, no exec, no logs, no wildcard: docs/security.md prints this
list, and a test compares the two.
*/ -}}
{{- define "holdfast.rules" -}}
- apiGroups: [holdfast.dev]
  resources: [backupstores, backuppolicies]
  verbs: [get, list, watch]
- apiGroups: [holdfast.dev]
  resources: [restorerequests]
  verbs: [get, list, watch, patch]
- apiGroups: [holdfast.dev]
  resources: [backups]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [holdfast.dev]
  resources: [backupstores/status, backuppolicies/status, backups/status, restorerequests/status]
  verbs: [get, patch]
- apiGroups: [holdfast.dev]
  resources: [backupstores/finalizers, backups/finalizers, restorerequests/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [apps]
  resources: [deployments/scale, statefulsets/scale]
  verbs: [get, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, create]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- define "holdfast.clusterRules" -}}
- apiGroups: [""]
  resources: [namespaces]
  resourceNames: [kube-system]
  verbs: [get]
{{- end -}}

{{- define "holdfast.ownNamespaceRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end -}}
