"""What the cluster's one node is made of: its networks, and the configs of the programs that run pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

PODS: Final = "10.20.0.0/16"
SERVICES: Final = "10.96.0.0/16"
PAUSE: Final = "registry.k8s.io/pause:3.10"


class NODE:
    """Where it is. Around it is the world: a network of its own, with senders and load balancers."""

    name: Final = "node-1"
    address: Final = "172.31.0.2"
    world: Final = "172.31.0.1"
    pods: Final = "10.20.0.0/24"
    interfaces: Final = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {"type": "bridge", "bridge": "pods0", "isGateway": True, "ipMasq": True, "hairpinMode": True,
             "ipam": {"type": "host-local", "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}]}},
        ],
    }  # fmt: skip
    """For CNI: a bridge, and addresses given by the node itself."""


def network() -> str:
    """The script that connects node and world. What leaves a bridge passes the firewall, as kube-proxy needs it."""
    return f"""
        ip link set lo up
        ip netns add world
        ip link add uplink type veth peer name node netns world
        ip address add {NODE.address}/24 dev uplink
        ip link set uplink up
        ip route add default via {NODE.world}
        in_world() {{ ip netns exec world "$@"; }}
        in_world ip link set lo up
        in_world ip address add {NODE.world}/24 dev node
        in_world ip link set node up
        sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
        in_world sysctl -qw net.ipv4.ip_forward=1
        # The balancers pass TCP through. A client beside them keeps its address; one behind the node cannot: the
        # answer would not come back this way.
        in_world iptables -t nat -A POSTROUTING -s {NODE.address} -d {NODE.address} -j MASQUERADE
        sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.uplink.rp_filter=0
    """


def balancer(address: str, port: int, node_port: int) -> str:
    """The script, in the world, that passes `address:port` on to a port of the node, as a cloud's balancer does."""
    to = f"-d {address} -p tcp --dport {port} -j DNAT --to-destination {NODE.address}:{node_port}"
    return f"""
        ip address add {address}/32 dev lo
        iptables -t nat -A PREROUTING {to}
        iptables -t nat -A OUTPUT {to}
    """


def containerd(folder: Path) -> str:
    """Its config. Debian has the interfaces' plugins in /usr/lib/cni."""
    return f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def kubelet(group: str, folder: Path) -> dict[str, Any]:
    """Its config: control groups below `group`, whatever the machine has of disk and swap."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{group}", "failCgroupV1": False, "failSwapOn": False,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [NODE.address], "clusterDomain": "cluster.local", "resolvConf": f"{folder}/resolv.conf",
        "evictionHard": {"memory.available": "100Mi"}, "imageGCHighThresholdPercent": 100,
    }  # fmt: skip


def domain_names(folder: Path) -> str:
    """CoreDNS' config: the cluster's Services, and what stands in the folder's `hosts`, even if its content changes."""
    return f"""
.:53 {{
    errors
    kubernetes cluster.local {{
        kubeconfig {folder}/admin.kubeconfig
    }}
    hosts {folder}/hosts {{
        reload 1s
        fallthrough
    }}
}}
"""


def storage(folder: Path, count: int = 8) -> list[dict[str, Any]]:
    """A default class of volumes, and `count` of them, which are folders: as root's as a new disk is."""
    made: list[dict[str, Any]] = [
        {
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
        }
    ]  # fmt: skip
    for number in range(count):
        place = folder / f"volume-{number}"
        place.mkdir()
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE.name]}
        made.append({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": place.name},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                "persistentVolumeReclaimPolicy": "Retain", "local": {"path": str(place)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            },
        })  # fmt: skip
    return made
