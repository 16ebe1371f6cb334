#!/bin/sh
# Builds what tests/cluster starts and applies, outside the repository and once for each version of its inputs:
# kube-apiserver, kubectl, and the custom resource definitions that the manifests use.
set -eu
cd "$(dirname "$0")/apiserver"
out=${XDG_CACHE_HOME:-$HOME/.cache}/m2m-verifier/cluster
key=$(cat go.mod go.sum main.go ../build.sh | sha256sum)
if [ "$(cat "$out/built" 2>/dev/null)" = "$key" ]; then exit; fi
echo "==> building kube-apiserver and kubectl (up to 40 minutes) into $out"
mkdir -p "$out"
rm -rf "$out/built" "$out/crds"
go=${GO:-go}
version=$(sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\)$/\1/p' go.mod)
minor=${version#v1.}
stamp=k8s.io/component-base/version
"$go" build -trimpath -buildvcs=false -o "$out/" -ldflags "-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%.*}" \
	. k8s.io/kubernetes/cmd/kubectl

echo "==> collecting custom resource definitions"
"$go" tool controller-gen crd:crdVersions=v1,allowDangerousTypes=true output:crd:dir="$out/crds" \
	paths=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1
# Their modules carry them: no need to compile anything.
module() { (cd "$out" && "$go" mod download -json "$1") | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; }
cert_manager=$(module github.com/cert-manager/cert-manager@v1.21.2)
gateway_api=$(module sigs.k8s.io/gateway-api@v1.6.3)
traefik=$(module github.com/traefik/traefik/v3@v3.7.13)
envoy_gateway=$(module github.com/envoyproxy/gateway@v1.9.1)
istio=$(module istio.io/api@v1.32.0)
# The filter ExternalAuth is in the experimental channel alone.
cp "$cert_manager"/deploy/crds/*.yaml "$gateway_api"/config/crd/experimental/gateway.*.yaml \
	"$traefik"/docs/content/reference/dynamic-configuration/traefik.io_*.yaml \
	"$envoy_gateway"/charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_securitypolicies.yaml \
	"$istio"/kubernetes/customresourcedefinitions.gen.yaml "$out/crds/"
chmod -R u+w "$out/crds"
echo "$key" > "$out/built"
