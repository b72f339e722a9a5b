#!/usr/bin/env bash
# A Kubernetes cluster as one process tree: etcd, API server, controller manager, scheduler, kubelet, containerd, runc and a
# registry, in mount, network and PID namespaces of their own; killing the printed pid ends all of it. Run as root on Debian.
#
#   cluster.sh build BIN        builds the programs from their Go modules into BIN, those that are missing
#   cluster.sh up BIN RUN       starts a cluster whose state is in the folder RUN; prints its pid once the node is ready
#
# Inside, RUN/kubeconfig is the administrator's, the registry listens on port 5000 (RUN/registry) of the loopback address and, for
# pods, of 10.99.0.1, and nothing leaves. The API server is at localhost:6443 and, for pods, at 10.99.0.1:6443.
# APISERVER_FLAGS is given to the API server.
set -euo pipefail
kubernetes=v1.36.3
address=10.99.0.1

build() {
  mkdir -p "$bin"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  if [ ! -x "$bin/kubelet" ]; then
    cd "$work"
    go mod download "k8s.io/kubernetes@$kubernetes"
    local module; module=$(go env GOMODCACHE)/cache/download/k8s.io/kubernetes/@v/$kubernetes.mod
    # The module replaces its parts by folders that are not in it; the same parts are published under the same version.
    {
      printf 'module cluster\n%s\nrequire k8s.io/kubernetes %s\nreplace (\n' "$(grep -E '^go ' "$module")" "$kubernetes"
      grep -oE '^\s+k8s.io/[a-z0-9-]+ => \./staging' "$module" | awk -v version="v0.${kubernetes#v1.}" '{print "\t" $1 " => " $1 " " version}'
      echo ')'
    } >go.mod
    local parts=(kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl) part
    {
      printf '//go:build tools\n\npackage cluster\n\n'
      for part in "${parts[@]}"; do echo "import _ \"k8s.io/kubernetes/cmd/$part\""; done
    } >tools.go
    go mod tidy 2>/dev/null
    for part in "${parts[@]}"; do
      go build -o "$bin/" -ldflags "-X k8s.io/component-base/version.gitVersion=$kubernetes" "k8s.io/kubernetes/cmd/$part"
    done
  fi
  cd /
  export GOBIN=$bin
  [ -x "$bin/containerd" ] || go install github.com/containerd/containerd/v2/cmd/containerd@v2.4.2
  [ -x "$bin/containerd-shim-runc-v2" ] || go install github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@v2.4.2
  [ -x "$bin/runc" ] || go install -tags seccomp github.com/opencontainers/runc@v1.4.3
  [ -x "$bin/kwok" ] || go install sigs.k8s.io/kwok/cmd/kwok@v0.8.0
  [ -x "$bin/crane" ] || go install github.com/google/go-containerregistry/cmd/crane@v0.22.1
}

# Process 1 of the namespaces.
inside() {
  export PATH=$bin:$PATH KUBECONFIG=$run/kubeconfig
  cd "$run"
  mount --make-rprivate /
  mount -t proc proc /proc
  local folder
  for folder in /run /var/lib/cni /var/log/pods /var/log/containers /var/lib/kubelet; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
  done
  mkdir -p log cni registry kubelet
  ip link set lo up
  # The node's address must not be the loopback's, and the kubelet wants a default route.
  ip addr add "$address/32" dev lo
  ip link add node0 type veth peer name node1
  ip link set node0 up
  ip link set node1 up
  ip route add default dev node0

  "$registry" :5000 "$run/registry" >log/registry 2>&1 &
  openssl genrsa -out sa.key 2048 2>/dev/null
  printf 'admin-token,admin,admin,"system:masters"\nnode-token,system:node:n1,n1,"system:nodes"\n' >tokens.csv
  kubeconfig admin "$run/kubeconfig"
  kubeconfig node "$run/node.kubeconfig"
  etcd --data-dir etcd --unsafe-no-fsync >log/etcd 2>&1 &
  # shellcheck disable=SC2086 # flags are words
  kube-apiserver --etcd-servers=http://127.0.0.1:2379 --cert-dir=certs --secure-port=6443 --advertise-address="$address" \
    --service-account-key-file=sa.key --service-account-signing-key-file=sa.key \
    --service-account-issuer=https://kubernetes.default.svc --token-auth-file=tokens.csv --authorization-mode=Node,RBAC \
    --service-cluster-ip-range=10.0.0.0/24 --allow-privileged --kubelet-preferred-address-types=InternalIP \
    --enable-aggregator-routing=true ${APISERVER_FLAGS:-} >log/apiserver 2>&1 &
  until kubectl get --raw /readyz >/dev/null 2>&1; do sleep .2; done
  kube-controller-manager --kubeconfig kubeconfig --service-account-private-key-file=sa.key --leader-elect=false \
    --root-ca-file=certs/apiserver.crt >log/controller-manager 2>&1 &
  kube-scheduler --kubeconfig kubeconfig --leader-elect=false >log/scheduler 2>&1 &

  # The second is for those who want a registry that asks who they are.
  for host in 127.0.0.1:5000 127.0.0.1:5001 "$address:5000"; do
    mkdir -p "hosts/$host"
    printf 'server = "http://%s"\n[host."http://%s"]\n' "$host" "$host" >"hosts/$host/hosts.toml"
  done
  cat >cni/10.conflist <<'CNI'
{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "pods0", "isGateway": true, "ipam":
  {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
CNI
  cat >containerd.toml <<CONTAINERD
version = 3
root = "$run/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "127.0.0.1:5000/pause:1"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "$run/hosts"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true # a machine without CAP_SYS_RESOURCE cannot lower it
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
    BinaryName = "$bin/runc"
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "$run/cni"
CONTAINERD
  mkdir -p pause/bin
  cp "$(command -v busybox)" pause/bin/
  for folder in sleep sh; do ln -sf busybox "pause/bin/$folder"; done
  tar -C pause -cf pause.tar .
  crane append -f pause.tar -t 127.0.0.1:5000/busybox:1 --platform linux/amd64 >/dev/null 2>&1
  crane mutate 127.0.0.1:5000/busybox:1 --entrypoint=/bin/sleep,1000000000 -t 127.0.0.1:5000/pause:1 >/dev/null 2>&1
  containerd -c containerd.toml >log/containerd 2>&1 &
  cat >kubelet.yaml <<'KUBELET'
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
evictionHard: {}
enforceNodeAllocatable: []
makeIPTablesUtilChains: false
clusterDNS: [10.0.0.10]
maxPods: 250
KUBELET
  until [ -S /run/containerd/containerd.sock ]; do sleep .1; done
  kubelet --config kubelet.yaml --kubeconfig node.kubeconfig --root-dir "$run/kubelet" --hostname-override n1 \
    --node-ip "$address" >log/kubelet 2>&1 &
  until kubectl get node n1 2>/dev/null | grep -q ' Ready'; do sleep .2; done
  until kubectl get serviceaccount default >/dev/null 2>&1; do sleep .2; done
  touch ready
  wait
}

kubeconfig() { # USER FILE
  cat >"$2" <<KUBECONFIG
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://localhost:6443", certificate-authority: $run/certs/apiserver.crt}}]
users: [{name: u, user: {token: $1-token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
KUBECONFIG
}

what=${1:?build, up or inside}
bin=$(realpath -m "${2:?the folder of programs}")
case $what in
  build) build ;;
  up)
    run=$(realpath -m "${3:?the folder of its state}")
    mkdir -p "$run"
    unshare --mount --net --pid --fork --kill-child bash "$(realpath "$0")" inside "$bin" "$run" >"$run/out" 2>&1 </dev/null &
    pid=$!
    for _ in $(seq 600); do
      if [ -e "$run/ready" ]; then
        echo "$pid"
        exit 0
      fi
      kill -0 "$pid" 2>/dev/null || break
      sleep .2
    done
    tail -n 5 "$run/out" "$run"/log/* >&2
    kill -9 "$pid" 2>/dev/null
    exit 1
    ;;
  inside)
    run=$(realpath -m "$3")
    registry=${REGISTRY:-$bin/registry}
    inside
    ;;
esac
