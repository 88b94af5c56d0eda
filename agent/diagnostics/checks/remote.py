"""Can this host offer volumes to others, and use theirs?"""

from __future__ import annotations

from collections.abc import Iterator

from agent.diagnostics.finding import Finding, bad, ok, skipped, warning
from agent.diagnostics.place import RULES_REMEDY, Place
from agent.host import facts, lio, nvme, nvmet, rbd, rdma, scsi, udev

_MODULES = "echo target_core_mod > /etc/modules-load.d/brickyard.conf; modprobe target_core_mod"
_VHOST = "echo vhost_scsi > /etc/modules-load.d/brickyard-vhost.conf; modprobe vhost_scsi"
_NVME_TARGET = "printf 'nvmet\\nnvmet-tcp\\n' > /etc/modules-load.d/brickyard-nvmet.conf; modprobe -a nvmet nvmet-tcp"
_NVME_INITIATOR = "echo nvme-tcp > /etc/modules-load.d/brickyard-nvme.conf; modprobe nvme-tcp"
_RBD = "echo rbd > /etc/modules-load.d/brickyard-rbd.conf; modprobe rbd"
_NO_RDMA = "`rdma link` shows the devices. In software: modprobe rdma_rxe; rdma link add rxe0 type rxe netdev INTERFACE"
_BY_RDMA = {"nvmet_rdma": "NVMe", "iser": "iSER"}


def check(place: Place) -> Iterator[Finding]:
    if not place.targets:
        yield skipped("remote", "No target is configured: volumes of this host are used on this host.")
    if {"lio", "iser"} & place.targets:
        yield from _target(place)
    if "vhost" in place.targets:
        yield from _vhost(place)
    if {"nvmet", "nvmet_rdma"} & place.targets:
        yield from _nvme_target(place)
    yield from _initiator(place)
    yield from _nvme_initiator(place)
    yield from _images(place)
    yield from _rdma(place)
    yield from _udev(place)


def _images(place: Place) -> Iterator[Finding]:
    keyring = place.keyring
    if keyring is None:
        return
    if not rbd.available(place.root):
        yield bad("remote", f"There is {keyring}, but the kernel's client of Ceph is not loaded.", f"Run: {_RBD}")
    elif keyring.stat().st_mode & 0o007:
        yield bad("remote", f"Everybody on this host can read {keyring}.", f"Run: chmod 0640 {keyring}")
    else:
        yield ok("remote", f"Volumes in Ceph are mapped with {keyring}.")


def _udev(place: Place) -> Iterator[Finding]:
    uses = scsi.iscsid_listens(place.root / "proc") or nvme.available(place.root) or rbd.available(place.root)
    if uses and udev.udevd_runs(place.root / udev.CONTROL.relative_to("/")) and not place.has_udev_rules:
        lost = "where a path to a volume is lost, udev may stand still until it is back"
        yield warning("remote", f"The udev rules of Brickyard are missing: {lost}.", RULES_REMEDY)


def _rdma(place: Place) -> Iterator[Finding]:
    """Told where it is of use: a target answers by it, or the module of an initiator is loaded."""
    sys = place.root / "sys"
    users = [f"offering volumes by {name}" for table, name in _BY_RDMA.items() if table in place.targets]
    loaded = {"nvme_rdma": "NVMe", "ib_iser": "iSER"}
    users += [f"using them by {name}" for module, name in loaded.items() if (sys / "module" / module).is_dir()]
    ports = rdma.ports(sys)
    for port in ports if users else ():
        links = ", ".join(sorted(port.links)) or "no interface"
        what = f"port {port.number} of the RDMA device {port.device} ({links})"
        if port.active:
            yield ok("remote", f"For {' and '.join(users)}: {what} is active.")
        else:
            yield warning(
                "remote", f"P{what[1:]} is not active.", "See that its cable or interface is up: `rdma link`."
            )
    if users and not ports:
        yield bad("remote", f"There is no RDMA device for {' and '.join(users)}.", _NO_RDMA)


def _nvme_target(place: Place) -> Iterator[Finding]:
    root = place.root / nvmet.CONFIGFS.relative_to("/")
    if not nvmet.available(root):
        remedy = f"Run: {_NVME_TARGET}"
        yield bad("remote", "The kernel's NVMe target is not loaded, or configfs is not mounted.", remedy)
        return
    broken = [found for found in nvmet.subsystems(root=root) if not (found.ready and found.portals)]
    for found in broken:
        remedy = "The agent makes it whole when it starts, and at the next attach of the volume."
        yield warning(
            "remote", f"The NVMe subsystem {found.target} of volume {found.volume_id} lets nobody in.", remedy
        )
    if not broken:
        yield ok("remote", "The kernel's NVMe target is ready.")


def _nvme_initiator(place: Place) -> Iterator[Finding]:
    if not nvme.available(place.root):
        yield skipped("remote", f"No NVMe/TCP initiator here. To use volumes of other hosts by it: {_NVME_INITIATOR}")
        return
    names = " and ".join(f"NVMe/{one.upper()}" for one in ("tcp", "rdma") if nvme.available(place.root, one))
    yield ok("remote", f"The {names} initiator is loaded, as {nvme.host_nqn(place.root)}.")
    if not nvme.gathers_paths(place.root / "sys"):
        remedy = "echo 'options nvme_core multipath=Y' > /etc/modprobe.d/brickyard-nvme.conf; restart the host"
        yield warning("remote", "nvme_core.multipath is off: of several portals one is used at a time.", remedy)
    for found in nvme.subsystems(place.root / "sys"):
        for one in found.controllers:
            if not one.live:
                where = f"{found.target} at {one.address}:{one.port}"
                yield warning("remote", f"The NVMe controller of {where} is {one.state}.",
                              "See that the portal can be reached; the controller comes back by itself.")  # fmt: skip


def _target(place: Place) -> Iterator[Finding]:
    root = place.root / lio.CONFIGFS.relative_to("/")
    if not lio.available(root):
        yield bad("remote", "The kernel's iSCSI target is not loaded, or configfs is not mounted.", f"Run: {_MODULES}")
        return
    there = (*lio.targets(root), *lio.targets(root, "iser"))
    broken = [found for found in there if not (found.ready and found.portals)]
    for found in broken:
        remedy = "The agent makes it whole when it starts, and at the next attach of the volume."
        yield warning("remote", f"The target of volume {found.volume_id} takes no log-ins.", remedy)
    if not broken:
        yield ok("remote", "The kernel's iSCSI target is ready.")


def _vhost(place: Place) -> Iterator[Finding]:
    root = place.root / lio.CONFIGFS.relative_to("/")
    if not (lio.has_vhost(place.root / "sys") and lio.available(root)):
        yield bad("remote", "The kernel's module vhost_scsi is not loaded: no guest gets a volume.", f"Run: {_VHOST}")
        return
    broken = [found for found in lio.targets(root, "vhost") if not found.ready]
    for found in broken:
        remedy = "The agent makes it whole when it starts, and at the next attach of the volume."
        yield warning("remote", f"The vhost endpoint {found.target} of volume {found.volume_id} is half made.", remedy)
    if not broken:
        yield ok("remote", "Guests of this host can have volumes by vhost.")


def _initiator(place: Place) -> Iterator[Finding]:
    if not scsi.iscsid_listens(place.root / "proc"):
        remedy = "To use volumes of other hosts: apt-get install open-iscsi; systemctl enable --now iscsid.socket"
        yield skipped("remote", f"No iSCSI initiator runs here. {remedy}")
        return
    try:
        name = facts.initiator_iqn(place.root)
    except OSError:
        name = None
    if name is None and not (place.root / "etc/iscsi/initiatorname.iscsi").exists():
        remedy = 'Run: echo "InitiatorName=$(iscsi-iname)" > /etc/iscsi/initiatorname.iscsi; systemctl restart iscsid'
        yield bad("remote", "This host has no iSCSI name.", remedy)
    else:
        yield ok("remote", f"The iSCSI initiator runs{f' as {name}' if name else ''}.")
    if scsi.multipathd_listens(place.root / "proc"):
        yield ok("remote", "multipathd runs: several portals become several paths.")
    else:
        remedy = "Run: apt-get install multipath-tools; systemctl enable --now multipathd"
        yield warning("remote", "multipathd does not run: of several portals one is used at a time.", remedy)
    for session in scsi.sessions(sys=place.root / "sys"):
        if not session.healthy:
            where = f"{session.target} at {session.address}:{session.port}"
            yield warning("remote", f"The session with {where} is {session.state.lower()}.",
                          "See that the portal can be reached; the session is made again by itself.")  # fmt: skip
