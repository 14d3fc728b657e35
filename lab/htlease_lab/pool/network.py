"""Addresses of a pool, and a bridge to one network namespace per execution point. Runs as root."""

from __future__ import annotations

import json
import shutil
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

from .errors import PoolError

EXECUTION_POINTS = ("ep1", "ep2")


@dataclass(frozen=True)
class Network:
    """The addresses of one pool; `number` is its own among the pools of this machine."""

    number: int
    bridged: bool

    @property
    def prefix(self) -> str:
        """First three numbers of every address of this pool."""
        return f"{'10' if self.bridged else '127'}.77.{self.number}"

    @property
    def ap_address(self) -> str:
        """Address of the access point; a lease server on this machine can listen there."""
        return f"{self.prefix}.1"

    def ep_address(self, ep: str) -> str:
        """Address of an execution point."""
        return f"{self.prefix}.{11 + EXECUTION_POINTS.index(ep)}"

    @property
    def bridge(self) -> str:
        """Name of the bridge device."""
        return f"htlbr{self.number}"

    def link(self, ep: str) -> str:
        """Name of the host's end of the cable to an execution point."""
        return f"htl{self.number}{ep}"

    def namespace(self, ep: str) -> str:
        """Name of the network namespace of an execution point, as `ip netns` knows it."""
        return f"htlease{self.number}-{ep}"

    def namespace_file(self, ep: str) -> Path:
        """The file that `nsenter --net` takes."""
        return Path("/run/netns") / self.namespace(ep)


def choose(name: str) -> Network:
    """Pick a subnet no route of this machine uses; the same name gets the same one if it can."""
    taken: set[str] = set()
    if shutil.which("ip"):
        for line in _ip("-4", "route").splitlines():
            taken.update(word.rsplit(".", 1)[0] for word in line.split() if word.count(".") == 3)
    first = zlib.crc32(name.encode()) % 250
    for offset in range(250):
        network = Network(number=1 + (first + offset) % 250, bridged=True)
        if network.prefix not in taken:
            return network
    raise PoolError("All subnets 10.77.1.0/24 to 10.77.250.0/24 are in use on this machine.")


def build(network: Network) -> None:
    """Make bridge, namespaces and cables; raises PoolError where that is not permitted."""
    _ip("link", "add", network.bridge, "type", "bridge")
    _ip("address", "add", f"{network.ap_address}/24", "dev", network.bridge)
    _ip("link", "set", network.bridge, "up")
    for ep in EXECUTION_POINTS:
        inside, link = network.namespace(ep), network.link(ep)
        _ip("netns", "add", inside)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", inside)
        _ip("link", "set", link, "master", network.bridge, "up")
        _ip("-n", inside, "address", "add", f"{network.ep_address(ep)}/24", "dev", "eth0")
        _ip("-n", inside, "link", "set", "eth0", "up")
        _ip("-n", inside, "link", "set", "lo", "up")


def dismantle(network: Network) -> None:
    """Remove what `build` made, as far as it exists; other devices are never touched."""
    if not network.bridged:
        return
    namespaces = {line.split()[0] for line in _ip("netns", "list").splitlines() if line.strip()}
    devices = {device["ifname"] for device in json.loads(_ip("-json", "link") or "[]")}
    for ep in EXECUTION_POINTS:
        if network.link(ep) in devices:
            _ip("link", "delete", network.link(ep))
        if network.namespace(ep) in namespaces:
            _ip("netns", "delete", network.namespace(ep))
    if network.bridge in devices:
        _ip("link", "delete", network.bridge)


def set_cable(network: Network, ep: str, plugged: bool) -> None:
    """Plug or unplug the cable of one execution point."""
    if ep not in EXECUTION_POINTS:
        raise PoolError(f"There is no execution point {ep!r}; there are {EXECUTION_POINTS}.")
    if not network.bridged:
        raise PoolError(
            "This pool runs on loopback, whose traffic cannot be cut: "
            "network namespaces need root and the right to make a bridge."
        )
    _ip("link", "set", network.link(ep), "up" if plugged else "down")


def is_plugged(network: Network, ep: str) -> bool:
    """Say whether the cable of an execution point is in."""
    if not network.bridged:
        return True
    (device,) = json.loads(_ip("-json", "link", "show", network.link(ep)))
    return "UP" in device["flags"]


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise PoolError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout
