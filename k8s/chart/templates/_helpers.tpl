{{- define "label" -}}app.kubernetes.io/name: m2m-verifier{{- end -}}

{{- define "url" -}}
{{- $path := dict "ingress-nginx" "/verify" "traefik-ingress-nginx" "/forward-auth" -}}
http://m2m-verifier.{{ .Release.Namespace }}.svc.cluster.local:8000{{ get $path .Values.ingress.proxy }}
{{- end -}}

{{- define "auth-url" -}}
{{ include "url" . }}{{ with .Values.ingress.policy }}/{{ . }}{{ end }}
{{- end -}}

{{- define "response-headers" -}}
{{- concat (list "X-M2M-Client-ID" "X-M2M-Scope" "X-M2M-Role" "X-M2M-Issuer") (keys (.Values.config.headers | default dict) | sortAlpha) | join ", " -}}
{{- end -}}

{{- /* A peer of a NetworkPolicy. */ -}}
{{- define "peer" -}}
namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .namespace | quote }}}}
podSelector: {matchLabels: {{ toJson .labels }}}
{{- end -}}
