"""Can LUNs of arrays be reached by this host's plain Fibre Channel adapters?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.diagnostics.finding import Finding, ok, skipped, warning
from agent.diagnostics.place import Place
from agent.host import fc, scsi
from agent.privsep import limits

_NO_LINK = "Linkdown"


def check(place: Place) -> Iterator[Finding]:
    sys = place.root / "sys"
    ports = fc.host_ports(sys)
    if not ports:
        yield skipped("fabric", "This host has no plain Fibre Channel adapter.")
        return
    yield from map(_port, ports)
    try:
        allowed = limits.read(place.limits_file).array_ports
    except FileNotFoundError:
        allowed = ()
    if not allowed:
        yield skipped("fabric", f"{place.limits_file} allows no array: [fc] array_ports = [...] names their ports.")
    usable = [one.host for one in ports if one.usable]
    ways = 0
    for name in allowed:
        seen = [one for host in usable for one in fc.array_ports(host, f"0x{name}", sys)]
        ways += sum(one.online for one in seen)
        yield _array_port(name, seen)
    if ways > 1 and not scsi.multipathd_listens(place.root / "proc"):
        remedy = "Run: apt-get install multipath-tools; systemctl enable --now multipathd"
        yield warning("fabric", "multipathd does not run: of several paths to a LUN one is used.", remedy)


def _port(one: fc.HostPort) -> Finding:
    named = f"Fibre Channel port {one.name.removeprefix('0x')} ({one.host})"
    if one.usable:
        return ok("fabric", f"{named} is online.")
    if one.state == _NO_LINK:
        return warning("fabric", f"{named} has no link.", "See cable and switch; its paths come back by themselves.")
    return skipped("fabric", f"{named} is not in use ({one.state.lower()}).")


def _array_port(name: str, seen: Sequence[fc.ArrayPort]) -> Finding:
    if by := [one.host for one in seen if one.online]:
        return ok("fabric", f"Array port {name} is seen by {', '.join(by)}.")
    if not seen:
        remedy = "See the zones of the fabric; /sys/class/fc_remote_ports/*/port_name lists what is seen."
        return warning("fabric", f"Array port {name} is seen by no port of this host.", remedy)
    told = ", ".join(
        f"{one.state.lower()} at {one.host}" if one.target is not None else f"no target at {one.host}" for one in seen
    )
    remedy = "See that the array's port is up and set to be a target; its paths come back by themselves."
    return warning("fabric", f"Array port {name} can not be used: {told}.", remedy)
