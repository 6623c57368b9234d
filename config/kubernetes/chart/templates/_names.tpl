{{- /* dtn.image: repository and tag of one image; call it with a list of root and the image's values */ -}}
{{- define "dtn.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- /* dtn.api-server: where the API server is, for who is in a cluster without ClusterIPs */ -}}
{{- define "dtn.api-server" -}}
- name: KUBERNETES_SERVICE_HOST
  valueFrom: {configMapKeyRef: {name: dtn-api-server, key: host}}
- name: KUBERNETES_SERVICE_PORT
  valueFrom: {configMapKeyRef: {name: dtn-api-server, key: port}}
{{- end -}}
