{{/* What names of everything in the release begin with. */}}
{{- define "hutong.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-hutong" .Release.Name) (contains "hutong" .Release.Name) -}}
{{- $name | trunc 35 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels that selectors use: these never change. */}}
{{- define "hutong.selector" -}}
app.kubernetes.io/name: hutong
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "hutong.labels" -}}
{{ include "hutong.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: {{ .Values.zone | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "hutong.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the restricted Pod Security Standard asks for, and a file system that cannot be written. */}}
{{- define "hutong.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "hutong.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Values that fit the schema and still make no zone: refused here, each by name. */}}
{{- define "hutong.check" -}}
{{- $seen := dict -}}
{{- range $i, $agency := .Values.agencies -}}
  {{- if hasKey $seen $agency.name -}}
    {{- fail (printf "agencies: two are called %q, at positions %d and %d: an agency has one node" $agency.name (get $seen $agency.name) $i) -}}
  {{- end -}}
  {{- $_ := set $seen $agency.name $i -}}
{{- end -}}
{{- range $name, $_ := .Values.policy.files -}}
  {{- if not (or (hasKey $seen $name) (eq $name "recognition")) -}}
    {{- fail (printf "policy.files.%s: there is no such agency in agencies" $name) -}}
  {{- end -}}
{{- end -}}
{{- with .Values.certificates -}}
  {{- if and (eq .source "issuer") (not .issuer.claim) -}}
    {{- fail "certificates.issuer.claim: name a PersistentVolumeClaim (ReadWriteMany) for the zone's authority, or take another certificates.source" -}}
  {{- end -}}
  {{- if and (or (eq .source "certManager") (and (eq .source "spire") (not .spire.longestLife))) (not .revocations.configMap) -}}
    {{- fail (printf "certificates.revocations.configMap: with source %s, name the ConfigMap that has the authority's revocation list as revoked.crl; without one a node lets nobody in" .source) -}}
  {{- end -}}
  {{- if and (ne .source "issuer") (not $.Values.keys.configMap) -}}
    {{- fail (printf "keys.configMap: with source %s, name the ConfigMap that has the published keys of all logs" .source) -}}
  {{- end -}}
  {{- if and (eq .source "certManager") (not .certManager.issuerRef.name) -}}
    {{- fail "certificates.certManager.issuerRef.name: name the issuer that certificates are asked from" -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/*
Everything that is rendered, thought out once: {"nodes": [...]}, as JSON. A node has
name, kind, agency, system, service (its name as a host), peer (how others name it in their configs), own (its values, on
top of the defaults), scaled (whether its replicas follow its load), owned (whether a job migrates its databases as
their owner) and config (what its TOML file says). External agencies are peers only: no node is made for them.
*/}}
{{- define "hutong.model" -}}
{{- include "hutong.check" . -}}
{{- $full := include "hutong.fullname" . -}}
{{- $defaults := .Values.defaults -}}
{{- $nodes := list -}}
{{- $departments := list -}}
{{- range .Values.agencies -}}
  {{- if ne .enabled false -}}
    {{- $agency := dict "name" .name "kind" "department" "agency" .name "system" "node" "own" . -}}
    {{- if .external -}}
      {{- $_ := set $agency "peer" (omit .external "cidrs") -}}
    {{- else -}}
      {{- $nodes = append $nodes $agency -}}
    {{- end -}}
    {{- $departments = append $departments $agency -}}
  {{- end -}}
{{- end -}}
{{- if not $departments -}}{{- fail "agencies: all are switched off, and a gateway needs one to ask" -}}{{- end -}}
{{- $services := dict "recognition" "node" "supervision" "node" "gateway" "main" -}}
{{- range $name := list "recognition" "supervision" "gateway" -}}
  {{- $own := get $.Values $name -}}
  {{- if ne $own.enabled false -}}
    {{- $nodes = append $nodes (dict "name" $name "kind" $name "agency" $name "system" (get $services $name) "own" $own) -}}
  {{- end -}}
{{- end -}}
{{- $peers := dict -}}
{{- range $node := $nodes -}}
  {{- $_ := set $node "own" (mergeOverwrite (deepCopy $defaults) (deepCopy $node.own)) -}}
  {{- $_ := set $node "service" (printf "%s-%s" $full $node.name) -}}
  {{- $_ := set $node "owned" (and $node.own.database.owner.enabled (eq $node.own.database.kind "postgresql")) -}}
  {{- $peer := dict "target" (printf "%s.%s.svc:50051" $node.service $.Release.Namespace) -}}
  {{- if ne $node.system "node" -}}{{- $_ := set $peer "system" $node.system -}}{{- end -}}
  {{- $_ := set $node "peer" $peer -}}
  {{- $_ := set $peers $node.name $peer -}}
  {{- $_ := set $node "scaled" (and $node.own.autoscaling.enabled (has $node.kind (list "gateway" "department"))) -}}
  {{- if and (eq $node.own.database.kind "sqlite") (or (gt (int $node.own.replicas) 1) $node.scaled) -}}
    {{- fail (printf "%s: a SQLite file is one replica's: set replicas to 1 and autoscaling off, or take PostgreSQL" $node.name) -}}
  {{- end -}}
  {{- if and $node.scaled (gt (int $node.own.autoscaling.minReplicas) (int $node.own.autoscaling.maxReplicas)) -}}
    {{- fail (printf "%s: autoscaling.minReplicas is above maxReplicas" $node.name) -}}
  {{- end -}}
{{- end -}}
{{- range $i, $node := $nodes -}}
  {{- $witness := index $nodes (mod (add1 $i) (len $nodes)) -}}
  {{- $given := dict "root" $ "node" $node "departments" $departments "peers" $peers "witness" $witness -}}
  {{- $_ := set $node "config" (include "hutong.config" $given | fromJson) -}}
{{- end -}}
{{- toJson (dict "nodes" $nodes "departments" $departments) -}}
{{- end -}}

{{/* A node's config as JSON: what its TOML file says, as `services/cli/node_files.py` writes it for a zone folder. */}}
{{- define "hutong.config" -}}
{{- $values := .root.Values -}}
{{- $node := .node -}}
{{- $sqlite := eq $node.own.database.kind "sqlite" -}}
{{- $migrate := and $node.own.database.migrate (not $node.owned) -}}
{{- $identity := "/etc/hutong/identity" -}}
{{- $files := dict "issuer" (list "credential-bundle.private-key.pem" "credential-bundle.private-key.pem") "certManager" (list "tls.crt" "tls.key") -}}
{{- $tls := dict -}}
{{- if eq $values.certificates.source "spire" -}}
  {{- $tls = dict "workload_api" (printf "unix:///spiffe-workload-api/%s" $values.certificates.spire.socket) "folder" (printf "%s/own" $identity) -}}
{{- else -}}
  {{- $pair := get $files $values.certificates.source -}}
  {{- $tls = dict "certificate" (printf "%s/%s" $identity (first $pair)) "key" (printf "%s/%s" $identity (last $pair)) "bundle" "/etc/hutong/trust/bundle.crt" -}}
{{- end -}}
{{- if include "hutong.trusts" $values -}}
  {{- $_ := set $tls "revoked" "/etc/hutong/trust/revoked.crl" -}}
{{- else -}}
  {{- $_ := set $tls "longest_life" $values.certificates.spire.longestLife -}}
{{- end -}}
{{- $keys := "/etc/hutong/keys" -}}
{{- $log := dict "key" "/etc/hutong/private/log.key" "keys" $keys "migrate" $migrate "readers" $values.readers -}}
{{- $store := dict "migrate" $migrate -}}
{{- if $sqlite -}}
  {{- $_ := set $log "url" "sqlite+aiosqlite:////var/lib/hutong/log.db" -}}
  {{- $_ := set $store "url" "sqlite+aiosqlite:////var/lib/hutong/store.db" -}}
{{- else -}}
  {{- $_ := set $log "url_file" (printf "/etc/hutong/database/%s" $node.own.database.logKey) -}}
  {{- $_ := set $store "url_file" (printf "/etc/hutong/database/%s" $node.own.database.storeKey) -}}
{{- end -}}
{{- if $values.tiles.enabled -}}{{- $_ := set $log "tiles" "0.0.0.0:8443" -}}{{- end -}}
{{- if ne .witness.name $node.name -}}{{- $_ := set $log "witnesses" (dict .witness.agency .witness.peer) -}}{{- end -}}
{{- $config := dict
      "secret" "/etc/hutong/private/secret"
      "node" (dict "zone" $values.zone "agency" $node.agency "system" $node.system "listen" "0.0.0.0:50051" "metrics" "0.0.0.0:9101")
      "tls" $tls
      "log" $log -}}
{{- /* The gateway reaches everybody already, and everybody the gateway: so each list is everywhere within two steps. */ -}}
{{- $sources := dict -}}
{{- if eq $node.kind "gateway" -}}
  {{- range .departments -}}{{- $_ := set $sources .agency (omit .peer "timeout") -}}{{- end -}}
  {{- range $name := list "recognition" "supervision" -}}
    {{- if hasKey $.peers $name -}}{{- $_ := set $sources $name (get $.peers $name) -}}{{- end -}}
  {{- end -}}
{{- else -}}
  {{- $_ := set $sources "gateway" .peers.gateway -}}
{{- end -}}
{{- if $tls.revoked -}}
  {{- $_ := set $tls "revocations_from" $sources -}}
  {{- $_ := set $tls "heard" (printf "%s/heard.crl" (ternary "/var/lib/hutong" "/tmp" $sqlite)) -}}
{{- end -}}
{{- $owners := list -}}
{{- range .departments -}}{{- $owners = append $owners .agency -}}{{- end -}}
{{- if hasKey .peers "recognition" -}}{{- $owners = append $owners "recognition" -}}{{- end -}}
{{- $judged := list $node.agency -}}
{{- if has $node.kind (list "gateway" "supervision") -}}{{- $judged = $owners -}}{{- end -}}
{{- $policies := list -}}
{{- range $judged -}}{{- $policies = append $policies (printf "/etc/hutong/policy/%s.cedar" .) -}}{{- end -}}
{{- $_ := set $config "policy" (dict "files" $policies "jurisdiction" $values.policy.jurisdiction) -}}
{{- if ne $node.kind "gateway" -}}
  {{- $_ := set $config "gateways" (list "gateway/main") -}}
  {{- $_ := set $config "store" $store -}}
{{- end -}}
{{- if and (ne $node.kind "supervision") (hasKey .peers "supervision") -}}
  {{- $_ := set $config "authorizations" (dict "target" .peers.supervision.target "keys" $keys) -}}
{{- end -}}
{{- $known := list $node.agency "audit" -}}
{{- if eq $node.kind "supervision" -}}{{- $known = concat $owners (list "supervision" "audit") -}}{{- end -}}
{{- $officers := dict -}}
{{- range $agency, $issuer := $values.officers -}}
  {{- if has $agency $known -}}
    {{- $section := omit $issuer "jwks" "jwks_ca" -}}
    {{- if $issuer.jwks -}}{{- $_ := set $section "jwks" (printf "/etc/hutong/officers/%s.jwks.json" $agency) -}}{{- end -}}
    {{- if $issuer.jwks_ca -}}{{- $_ := set $section "jwks_ca" (printf "/etc/hutong/officers/%s.ca.crt" $agency) -}}{{- end -}}
    {{- $_ := set $officers $agency $section -}}
  {{- end -}}
{{- end -}}
{{- if $officers -}}{{- $_ := set $config "officers" $officers -}}{{- end -}}
{{- if eq $node.kind "department" -}}
  {{- if hasKey .peers "recognition" -}}
    {{- $followed := deepCopy .peers.recognition -}}
    {{- if $values.nats.servers -}}
      {{- $_ := set $config "nats" (dict "servers" $values.nats.servers) -}}
      {{- $_ := set $followed "carrier" "nats" -}}
    {{- end -}}
    {{- $_ := set $config "events" (dict "recognition" $followed) -}}
  {{- end -}}
  {{- $live := dict -}}
  {{- range $type, $source := $node.own.live -}}
    {{- if not (hasKey (default dict $node.own.mappings) $source.mapping) -}}
      {{- fail (printf "agencies %s: live %s: there is no mapping %q in its mappings" $node.name $type $source.mapping) -}}
    {{- end -}}
    {{- $_ := set $live $type (dict "mapping" (printf "/etc/hutong/mappings/%s" $source.mapping) "url_file" (printf "/etc/hutong/database/%s" $source.key)) -}}
  {{- end -}}
  {{- if $live -}}{{- $_ := set $config "live" $live -}}{{- end -}}
  {{- $let := list -}}
  {{- range $zone, $section := $values.zones -}}
    {{- if $section.may_ask -}}{{- $let = append $let $zone -}}{{- end -}}
  {{- end -}}
  {{- if $let -}}{{- $_ := set $config "zones" $let -}}{{- end -}}
{{- else if eq $node.kind "gateway" -}}
  {{- $departments := dict -}}
  {{- range .departments -}}{{- $_ := set $departments .agency .peer -}}{{- end -}}
  {{- if hasKey .peers "recognition" -}}{{- $_ := set $departments "recognition" .peers.recognition -}}{{- end -}}
  {{- $_ := set $config "departments" $departments -}}
  {{- if $values.zones -}}
    {{- $zones := dict -}}
    {{- range $zone, $section := $values.zones -}}
      {{- $brought := printf "/etc/hutong/zones/%s" $zone -}}
      {{- $other := omit $section "configMap" "cidrs" -}}
      {{- $_ := set $other "bundle" (printf "%s/bundle.crt" $brought) -}}
      {{- if not $section.longest_life -}}{{- $_ := set $other "revoked" (printf "%s/revoked.crl" $brought) -}}{{- end -}}
      {{- /* Of a zone that is not asked itself nothing is heard: what was brought counts, and is followed where it lies. */ -}}
      {{- if $section.target -}}
        {{- $_ := set $other "folder" (printf "%s/zones/%s" (ternary "/var/lib/hutong" "/tmp" $sqlite) $zone) -}}
      {{- end -}}
      {{- $_ := set $zones $zone $other -}}
    {{- end -}}
    {{- $_ := set $config "zones" $zones -}}
    {{- $_ := set $config "door" (dict "listen" "0.0.0.0:50061") -}}
  {{- end -}}
{{- else -}}
  {{- $_ := set $config "keys" $keys -}}
  {{- $_ := set $config "signing" "/etc/hutong/signing" -}}
  {{- if and (eq $node.kind "recognition") $values.nats.servers -}}
    {{- $readers := list -}}
    {{- range .departments -}}{{- if .own.external | not -}}{{- $readers = append $readers (printf "%s/node" .agency) -}}{{- end -}}{{- end -}}
    {{- if $readers -}}{{- $_ := set $config "nats" (dict "servers" $values.nats.servers "readers" $readers) -}}{{- end -}}
  {{- end -}}
  {{- if eq $node.kind "supervision" -}}{{- $_ := set $config "auditors" $node.own.auditors -}}{{- end -}}
  {{- range $folder := list "procedures" "arrangements" "calendars" -}}
    {{- if get $node.own $folder -}}{{- $_ := set $config $folder (printf "/etc/hutong/%s" $folder) -}}{{- end -}}
  {{- end -}}
{{- end -}}
{{- if $node.own.access -}}{{- $_ := set $config "access" "/etc/hutong/access/access.yaml" -}}{{- end -}}
{{- toJson (mergeOverwrite $config (deepCopy $node.own.config)) -}}
{{- end -}}

{{/* Whether there is a folder with what everybody reads: all but SPIRE's without a revocation list have one. */}}
{{- define "hutong.trusts" -}}
{{- if or (ne .certificates.source "spire") .certificates.revocations.configMap }}yes{{ end -}}
{{- end -}}

{{/* Where a pod that acts as a node has its identity. */}}
{{- define "hutong.identity" -}}
{{- $values := .root.Values -}}
{{- if eq $values.certificates.source "issuer" }}
- {name: authority, mountPath: /etc/hutong/identity, subPath: authority/svid/{{ .node.agency }}/{{ .node.system }}, readOnly: true}
- {name: authority, mountPath: /etc/hutong/trust, subPath: trust, readOnly: true}
{{- else if eq $values.certificates.source "certManager" }}
- {name: identity, mountPath: /etc/hutong/identity, readOnly: true}
- {name: trust, mountPath: /etc/hutong/trust, readOnly: true}
{{- else }}
# The Workload API's socket, and where the node keeps what it hands out: in memory, for this pod's life.
- {name: workload-api, mountPath: /spiffe-workload-api, readOnly: true}
- {name: identity, mountPath: /etc/hutong/identity}
{{- if include "hutong.trusts" $values }}
- {name: trust, mountPath: /etc/hutong/trust, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{/* Folders of files that only this node has, as JSON: {folder: {file: text}}. */}}
{{- define "hutong.folders" -}}
{{- $own := .own -}}
{{- $folders := dict -}}
{{- range $folder := list "mappings" "procedures" "arrangements" "calendars" -}}
  {{- with get $own $folder -}}{{- $_ := set $folders $folder . -}}{{- end -}}
{{- end -}}
{{- with $own.access -}}{{- $_ := set $folders "access" (dict "access.yaml" .) -}}{{- end -}}
{{- toJson $folders -}}
{{- end -}}

{{/* The policies of all who own records: those of the values, or those that come with the product. */}}
{{- define "hutong.policies" -}}
{{- $owners := list "recognition" -}}
{{- range .model.departments -}}{{- $owners = append $owners .agency -}}{{- end -}}
{{- range $owners }}
{{ . }}.cedar: |
  {{- get $.root.Values.policy.files . | default ($.root.Files.Get (printf "files/policy/%s.cedar" .)) | trim | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The volumes of a node. Group-readable secrets are the pod's own group's: nobody else's. */}}
{{- define "hutong.volumes" -}}
{{- $values := .root.Values -}}
{{- $node := .node -}}
{{- $own := $node.own -}}
{{- $source := $values.certificates.source -}}
{{- $private := default (printf "%s-private" $node.service) $own.private -}}
- name: node
  configMap: {name: {{ $node.service }}}
- name: policy
  configMap: {name: {{ .full }}-policy}
{{- range $folder, $_ := .folders }}
- name: {{ $folder }}
  configMap: {name: {{ $node.service }}-{{ $folder }}}
{{- end }}
{{- if $node.config.officers }}
- name: officers
  configMap: {name: {{ .full }}-officers}
{{- end }}
{{- if $node.config.door }}
- name: zones
  projected:
    sources:
      {{- range $zone, $section := $values.zones }}
      - configMap:
          name: {{ $section.configMap }}
          items:
            - {key: bundle.crt, path: {{ $zone }}/bundle.crt}
            {{- if not $section.longest_life }}
            - {key: revoked.crl, path: {{ $zone }}/revoked.crl}
            {{- end }}
      {{- end }}
{{- end }}
{{- if eq $own.database.kind "sqlite" }}
- name: data
  {{- if $own.database.claim }}
  persistentVolumeClaim: {claimName: {{ $own.database.claim }}}
  {{- else }}
  emptyDir: {sizeLimit: 1Gi}
  {{- end }}
{{- end }}
{{- if or (ne $own.database.kind "sqlite") $node.config.live }}
- name: database
  secret: {secretName: {{ default (printf "%s-database" $node.service) $own.database.secret }}, defaultMode: 0440}
{{- end }}
{{- if eq $source "issuer" }}
- name: authority
  persistentVolumeClaim: {claimName: {{ $values.certificates.issuer.claim }}}
{{- else }}
- name: identity
  {{- if eq $source "certManager" }}
  secret: {secretName: {{ $node.service }}-identity, defaultMode: 0440}
  {{- else }}
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: workload-api
  csi: {driver: csi.spiffe.io, readOnly: true}
  {{- end }}
{{- if include "hutong.trusts" $values }}
- name: trust
  projected:
    sources:
      {{- if eq $source "certManager" }}
      - secret: {name: {{ $node.service }}-identity, items: [{key: ca.crt, path: bundle.crt}]}
      {{- end }}
      - configMap: {name: {{ $values.certificates.revocations.configMap }}, items: [{key: revoked.crl, path: revoked.crl}]}
{{- end }}
- name: keys
  configMap: {name: {{ $values.keys.configMap }}}
- name: private
  secret: {secretName: {{ $private }}, defaultMode: 0440}
{{- if hasKey $node.config "signing" }}
- name: signing
  secret: {secretName: {{ $private }}-signing, defaultMode: 0440}
{{- end }}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- end -}}

{{/* What makes something a hook before installations and upgrades, in order of this weight; gone when all went well. */}}
{{- define "hutong.before" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- define "hutong.jobPod" -}}
restartPolicy: Never
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- include "hutong.podSecurity" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "hutong.jobContainer" -}}
image: {{ include "hutong.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources:
  requests: {cpu: 50m, memory: 128Mi}
  limits: {memory: 256Mi}
securityContext: {{- include "hutong.containerSecurity" . | nindent 2 }}
{{- end -}}

{{/* A job that makes and renews what nodes hold in private. It talks to nobody and needs no token. */}}
{{- define "hutong.issuer" -}}
backoffLimit: 3
activeDeadlineSeconds: 300
template:
  metadata:
    labels: {{- include "hutong.selector" .root | nindent 6 }}
      app.kubernetes.io/component: issuer
  spec:
    {{- include "hutong.jobPod" .root | nindent 4 }}
    containers:
      - name: issuer
        {{- include "hutong.jobContainer" .root | nindent 8 }}
        args:
          - provision
          - /authority
          - --zone={{ .root.Values.zone }}
          {{- range .model.nodes }}
          - --node={{ .name }}
          {{- end }}
          {{- range .issuer.systems }}
          - --system={{ . }}
          {{- end }}
          {{- if .root.Values.keys.configMap }}
          - --publish=/published
          {{- end }}
        volumeMounts:
          - {name: authority, mountPath: /authority}
          {{- if .root.Values.keys.configMap }}
          - {name: published, mountPath: /published, readOnly: true}
          {{- end }}
          - {name: tmp, mountPath: /tmp}
    volumes:
      - name: authority
        persistentVolumeClaim: {claimName: {{ .issuer.claim }}}
      {{- if .root.Values.keys.configMap }}
      - name: published
        configMap: {name: {{ .root.Values.keys.configMap }}}
      {{- end }}
      - name: tmp
        emptyDir: {sizeLimit: 16Mi}
{{- end -}}

{{/*
Whom each node calls, read from its config, as JSON: {node: {"nodes": [names], "outside": [{"port", "cidrs"}]}}. What is
not one of our nodes lies outside: an external agency, a collector, an identity provider.
*/}}
{{- define "hutong.calls" -}}
{{- $model := . -}}
{{- $places := dict -}}
{{- range .nodes -}}{{- $_ := set $places .peer.target .name -}}{{- end -}}
{{- $calls := dict -}}
{{- range $node := .nodes -}}
  {{- $config := $node.config -}}
  {{- $peers := list -}}
  {{- range $table := list $config.departments $config.events $config.log.witnesses $config.tls.revocations_from -}}
    {{- range $agency, $peer := $table -}}{{- $peers = append $peers $peer.target -}}{{- end -}}
  {{- end -}}
  {{- with $config.authorizations -}}{{- $peers = append $peers .target -}}{{- end -}}
  {{- $nodes := list -}}
  {{- $outside := list -}}
  {{- range $target := $peers | uniq -}}
    {{- if hasKey $places $target -}}
      {{- $nodes = append $nodes (get $places $target) -}}
    {{- else -}}
      {{- $cidrs := list -}}
      {{- range $model.departments -}}
        {{- if and .peer (eq .peer.target $target) -}}{{- $cidrs = default list (default dict .own.external).cidrs -}}{{- end -}}
      {{- end -}}
      {{- $outside = append $outside (dict "port" (regexFind "[0-9]+$" $target | int) "cidrs" $cidrs) -}}
    {{- end -}}
  {{- end -}}
  {{- range (default dict $config.nats).servers -}}
    {{- $outside = append $outside (dict "port" (regexFind "[0-9]+$" . | int) "cidrs" list) -}}
  {{- end -}}
  {{- with (default dict $config.telemetry).otlp -}}
    {{- $outside = append $outside (dict "port" (regexFind "[0-9]+$" . | default "4317" | int) "cidrs" list) -}}
  {{- end -}}
  {{- range $config.officers -}}
    {{- if .jwks_url -}}{{- $outside = append $outside (dict "port" 443 "cidrs" list) -}}{{- end -}}
  {{- end -}}
  {{- $_ := set $calls $node.name (dict "nodes" ($nodes | uniq | sortAlpha) "outside" ($outside | uniq)) -}}
{{- end -}}
{{- toJson $calls -}}
{{- end -}}
