"""What can go wrong between a volume and a host."""

from __future__ import annotations

from agent.base.errors import Conflict, NotFound, Temporary


class DeviceMismatch(Conflict):
    """The device that came is not what was asked for: no path leaves the agent."""

    code = "attachment.mismatch"
    sentence = "{device} of attachment {attachment} is not what was asked for: {reason}."
    hint = "Detach the attachment and attach it again; nothing was handed out."


class DeviceNotReady(Temporary):
    code = "attachment.not-ready"
    sentence = "{device} did not become ready within {seconds} s: {reason}."
    hint = "Look at `udevadm monitor` and at the load of the host; it is tried again."


class NotAttached(NotFound):
    code = "attachment.not-attached"
    sentence = "Attachment {attachment} has no device on this host."
    hint = "`brickyard-agent attachments` lists what is attached."


class DetachIncomplete(Conflict):
    code = "attachment.left-over"
    sentence = "Attachment {attachment} could not be removed wholly; left: {left}; because: {reason}"
    hint = (
        "Remove the named users, then detach again: it goes on where it stopped. A process is named, as "
        "root, by brickyard-agent explain VOLUME. It is cut off by: brickyard attachment delete --force."
    )


class BrickUnavailable(Temporary):
    code = "attachment.os-brick"
    status = 501
    sentence = "os-brick can not be used: {reason}."
    hint = "Install the extra: pip install 'brickyard[agent]'."


class NoConnector(NotFound):
    code = "attachment.no-connector-module"
    sentence = "This host has no connector for {protocol}; it has: local, {known}."
    hint = "Bring the agent to the coordinator's release, or attach by another transport."


class NoPath(Temporary):
    code = "attachment.no-path"
    retry_after = 5.0
    sentence = "No path to {target} could be made: {reason}"
    hint = "See that its portals can be reached from this host: ip route get ADDRESS; `brickyard-agent doctor`."


class KeyringUnusable(Temporary):
    code = "attachment.ceph-keyring"
    status = 409
    retry_after = 10.0
    sentence = "This host can not map volumes of a Ceph cluster with {keyring}: {reason}."
    hint = (
        "ceph auth get client.NAME -o FILE; chgrp brickyard FILE; chmod 0640 FILE; name it: [connectors] ceph_keyring."
    )


class NoFabricPath(NoPath):
    code = "attachment.no-fabric-path"
    sentence = "No path to {target} came over the fabric: {reason}"
    hint = "Check zoning and host mapping on the array; here: lsscsi -t, /sys/class/fc_remote_ports, lszfcp -P."


class NoFabricPort(Temporary):
    code = "attachment.no-fabric-port"
    status = 409
    retry_after = 10.0
    sentence = "No Fibre Channel port of this host is online on its fabric: {reason}."
    hint = "Look at port_state below /sys/class/fc_host; on IBM Z: chzdev -e zfcp-host DEVICE, lszfcp -Ha."


class ReplicaMissing(Temporary):
    """Started without it, a mirror could show what was overwritten long ago."""

    code = "attachment.replica-missing"
    retry_after = 10.0
    sentence = "Mirror {target} is not started: {count} of its replicas do not answer, and may know more. {reason}"
    hint = "Bring them back; if they are lost for good, say so with the connection (degraded), or replace them."


class PathDown(Temporary):
    code = "attachment.path-down"
    retry_after = 10.0
    sentence = "{target} can not be resized here: not all its paths are up ({paths})."
    hint = "Bring the path back (multipath -ll, iscsiadm -m session -P 1); it is tried again."
