#!/usr/bin/env bash
# Builds what `make try-kubernetes` runs: a Kubernetes, etcd, CoreDNS, and kube-router for the network policies.
#
# All of it is compiled from Go modules, which come by their names from the Go module proxy, with their sums checked; no
# release page and no registry of images is asked. It needs Go 1.24 or newer and a quarter of an hour the first time. What is
# there already is not built again; deleting the folder starts anew.
#
# usage: tools/kubernetes.sh [folder]        (default: .kubernetes)
set -euo pipefail
cd "$(dirname "$0")/.."

kubernetes=${KUBERNETES:-1.34.4}
etcd=v3.6.13
coredns=v1.12.4
router=v2.1.0
operator=v0.85.0 # the Prometheus operator's definitions of its kinds

say() { echo "kubernetes: $*" >&2; }
command -v go >/dev/null || {
    say "no go here: install golang 1.24 or newer"
    exit 1
}

folder=${1:-.kubernetes}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
# The tidying of a module writes its file and its sums; cgo is left out, so that the programs run wherever the kernel does.
export GOFLAGS=-mod=mod CGO_ENABLED=0
jobs=${JOBS:-2}

# quietly COMMAND: what it says is told only if it fails.
quietly() {
    "$@" >log 2>&1 || {
        cat log >&2
        say "failed in $PWD: $*"
        exit 1
    }
}

# begin NAME: an empty module of ours, to build within.
begin() {
    mkdir -p "$folder/src/$1"
    cd "$folder/src/$1"
    printf 'module trial/%s\n\ngo 1.24.0\n' "$1" >go.mod
}

# sources MODULE@VERSION: the folder that they are in.
sources() {
    go mod download -json "$1" >found || {
        cat found >&2
        say "go cannot fetch $1"
        exit 1
    }
    sed -n 's/^\s*"Dir": "\(.*\)",$/\1/p' found
}

# compile PROGRAM PACKAGE [FLAGS]: of the module in this folder.
compile() {
    [ ! -x "$folder/$1" ] || return 0
    say "compiling $1"
    nice -n 15 go build -p "$jobs" -trimpath -ldflags "-s -w ${3:-}" -o "$folder/$1.new" "$2"
    mv "$folder/$1.new" "$folder/$1"
}

# Kubernetes' own module names its parts by folders that only its repository has: each is a module of its own as well.
programs=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl)
begin kubernetes
source=$(sources "k8s.io/kubernetes@v$kubernetes")
{
    printf '\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' "$kubernetes"
    sed -n "s#^\s*\(k8s.io/[a-z-]*\) => ./staging.*#\t\1 => \1 v0.${kubernetes#*.}#p" "$source/go.mod"
    echo ')'
} >>go.mod
{
    echo 'package trial'
    for program in "${programs[@]}"; do echo "import _ \"k8s.io/kubernetes/cmd/$program\""; done
} >imports.go
quietly go mod tidy -e # it complains that programs are imported, and finds what they need all the same
IFS=. read -r major minor _ <<<"$kubernetes"
flags=
for place in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $place.gitVersion=v$kubernetes -X $place.gitMajor=$major -X $place.gitMinor=$minor"
done
for program in "${programs[@]}"; do compile "$program" "k8s.io/kubernetes/cmd/$program" "$flags"; done

begin etcd
quietly go get "go.etcd.io/etcd/server/v3@$etcd"
compile etcd go.etcd.io/etcd/server/v3

begin router
quietly go get "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router@$router"
compile kube-router github.com/cloudnativelabs/kube-router/v2/cmd/kube-router

# The few parts of CoreDNS that a cluster needs.
begin coredns
{
    echo 'package main'
    echo 'import "github.com/coredns/coredns/coremain"'
    for part in errors hosts kubernetes; do echo "import _ \"github.com/coredns/coredns/plugin/$part\""; done
    echo 'func main() { coremain.Run() }'
} >main.go
quietly go get "github.com/coredns/coredns@$coredns"
quietly go mod tidy
compile coredns .

# What keeps a pod's namespaces while it lives.
begin pause
cat >main.go <<'END'
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	<-ended
	os.Exit(0)
}
END
compile pause .

begin operator
definitions=$(sources "github.com/prometheus-operator/prometheus-operator@$operator")
for kind in servicemonitors prometheusrules; do
    cp "$definitions/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$folder/$kind.yaml"
    chmod u+w "$folder/$kind.yaml"
done

say "ready: Kubernetes v$kubernetes in ${folder##*/}, $(du -sh --exclude=src "$folder" | cut -f1)"
