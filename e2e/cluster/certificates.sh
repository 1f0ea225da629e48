#!/usr/bin/env bash
# Makes the cluster's certificate authority, and a kubeconfig for each of its parts. Keeps what is there already.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=settings.sh
source "$here/settings.sh"
umask 077

[[ ! -f $pki/done ]] || exit 0
rm -rf "$pki"
mkdir -p "$pki"
cd "$pki"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=holdfast-cluster \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca.key -out ca.crt
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out service-accounts.key
openssl pkey -in service-accounts.key -pubout -out service-accounts.pub

# sign NAME SUBJECT [EXTENSION…]
sign() {
  local name=$1 subject=$2
  shift 2
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$subject" -keyout "$name.key" -out "$name.csr"
  openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out "$name.crt" \
    -extfile <(printf '%s\n' "keyUsage=critical,digitalSignature" "$@")
  rm "$name.csr"
}

# client NAME SUBJECT: a certificate, and the kubeconfig that holds it.
client() {
  sign "$1" "$2" extendedKeyUsage=clientAuth
  cat >"$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters:
- name: holdfast
  cluster:
    server: $api_server
    certificate-authority-data: $(base64 -w0 ca.crt)
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$1.crt")
    client-key-data: $(base64 -w0 "$1.key")
contexts:
- name: holdfast
  context: {cluster: holdfast, user: $1}
current-context: holdfast
YAML
}

names=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost
sign api-server /CN=kube-apiserver extendedKeyUsage=serverAuth \
  "subjectAltName=$names,IP:$node_address,IP:$api_service_address,IP:127.0.0.1"
sign kubelet-server "/O=system:nodes/CN=system:node:$node_name" extendedKeyUsage=serverAuth \
  "subjectAltName=DNS:$node_name,IP:$node_address"
sign api-server-to-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client extendedKeyUsage=clientAuth
client admin /O=system:masters/CN=admin
client controller-manager /CN=system:kube-controller-manager
client scheduler /CN=system:kube-scheduler
client kubelet "/O=system:nodes/CN=system:node:$node_name"
client proxy /CN=system:kube-proxy
client dns /CN=system:dns
client provisioner /CN=system:hostpath-provisioner
touch "done"
