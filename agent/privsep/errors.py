"""What the privileged side can answer. Contexts hold plain strings and numbers, so errors survive the daemon's wire."""

from __future__ import annotations

from agent.base.errors import Conflict, Invalid, NotFound, Permanent, Temporary


class PrivilegeUnavailable(Permanent):
    code = "privilege.unavailable"
    status = 501
    exit_code = 6
    sentence = "{verb} needs privileges that this agent does not have: {reason}."
    hint = "Start the agent as root (it drops to an ordinary user by itself), or set up sudo with rootwrap.d/."


class PrivilegeTimeout(Temporary):
    code = "privilege.timeout"
    sentence = "{verb} has not ended after {seconds} s; it goes on by itself."
    hint = "It is tried again; `dmesg` tells whether a device hangs."


class CommandStuck(PrivilegeTimeout):
    """It outlived SIGKILL, which happens while it waits for a device inside the kernel."""

    code = "privilege.stuck"
    retry_after = 30.0
    sentence = "{verb} (process {pid}) hangs inside the kernel: it was killed after {seconds} s and is still there."
    hint = "A device below it does not answer; see the kernel log. Volumes elsewhere are not held up."


class DaemonLost(Temporary):
    code = "privilege.daemon-lost"
    sentence = "The privileged daemon {context} has ended while the agent needs it."
    hint = "The agent ends now and systemd starts it anew; look for an out-of-memory kill in the journal."


class LimitsInvalid(Permanent):
    code = "privilege.limits-invalid"
    status = 500
    sentence = "The limits file {path} can not be trusted: {reason}."
    hint = "It must be a TOML file owned by root and writable by root alone: chown root:root, chmod 644."


class AccountInvalid(Permanent):
    code = "privilege.account"
    status = 500
    sentence = "The agent can not run as user {user}: {reason}."
    hint = "Create the user (systemd-sysusers), or give it the named path: chown, and o+x on each folder above."


class VerbRefused(Invalid):
    """An argument that the privileged side does not accept, whoever asked."""

    code = "privilege.refused"
    status = 403
    sentence = "Refused by the privileged side: {reason}."
    hint = "Compare the path and the names with /etc/brickyard/limits.toml."


class DeviceHeld(Conflict):
    code = "device.held"
    sentence = "{device} is in use: {holders}."
    hint = "Unmount or close what is named, then detach again; `fuser -v {device}` names processes."


class DeviceForeign(Conflict):
    code = "device.foreign"
    sentence = "{device} is not the device of this attachment: {reason}."
    hint = "Nothing was changed. `brickyard-agent attachments` shows what the kernel holds."


class NoLoopDevice(Temporary):
    code = "device.no-loop"
    sentence = "No free loop device could be had: {reason}."
    hint = "Load the module (modprobe loop), or release unused ones: losetup -a."


class KernelRefused(Temporary):
    code = "device.kernel"
    sentence = "The kernel refused to {action} {device}: {reason}."
    hint = "`dmesg` usually says why."


class CryptUnavailable(Permanent):
    code = "device.no-dm-crypt"
    status = 501
    sentence = "This host can not open an encrypted device: {reason}."
    hint = "Load dm-crypt (modprobe dm-crypt) and install cryptsetup; until then the raw device can be attached."


class WrongKey(Permanent):
    code = "device.wrong-key"
    status = 409
    sentence = "No key slot of {device} opens with the given secret."
    hint = "Compare the volume's encryption key id with the key store."


class CryptFailed(Temporary):
    code = "device.crypt-failed"
    sentence = "cryptsetup could not {action} {device}: {reason}."
    hint = "Run `cryptsetup luksDump {device}` on the host to see whether the header is whole."


class ProgramMissing(Permanent):
    code = "privilege.program-missing"
    status = 501
    sentence = "The program {program} is not installed on this host."
    hint = "Install it (`brickyard-agent doctor` names the package)."


class TargetRefused(Temporary):
    code = "target.kernel"
    sentence = "The kernel's target refused to {action}: {reason}."
    hint = "Load it (modprobe target_core_mod, or nvmet-tcp), mount configfs, look who has its port; see `dmesg`."


class NoRdma(Temporary):
    code = "rdma.no-device"
    retry_after = 10.0
    sentence = "This host has no RDMA device for {what}: {reason}."
    hint = (
        "`rdma link` shows the devices and their interfaces, `ip addr` whose address it is; in software: "
        "rdma link add rxe0 type rxe netdev INTERFACE."
    )


class NoVhost(Temporary):
    code = "vhost.no-module"
    retry_after = 10.0
    sentence = "This host can not offer volumes to its guests by vhost: the kernel's module vhost_scsi is not loaded."
    hint = "Run: echo vhost_scsi > /etc/modules-load.d/brickyard-vhost.conf; modprobe vhost_scsi."


class VhostHeld(Conflict):
    code = "vhost.held"
    sentence = "A guest has the vhost endpoint {target} of volume {volume} open."
    hint = (
        "Take the device out of the guest, or stop it, then detach again; `fuser -v /dev/vhost-scsi` on the volume's "
        "host names the processes. Nothing was changed."
    )


class LoginFailed(Temporary):
    code = "iscsi.login-failed"
    sentence = "No session with {target} at {portal}: {reason}."
    hint = "See that the portal can be reached from this host and that iscsid runs: systemctl status iscsid."


class LoginRefused(Permanent):
    code = "iscsi.login-refused"
    status = 403
    exit_code = 6
    sentence = "{target} at {portal} does not let this host in."
    hint = "Compare the initiator name in /etc/iscsi/initiatorname.iscsi with the export, and start iscsid anew."


class InterfaceUnknown(Temporary):
    code = "iscsi.interface-unknown"
    sentence = "Interface {name} of open-iscsi is not usable: {file}: {reason}."
    hint = "Make it with `iscsiadm -m iface -I {name} --op=new`, or take it out of [connectors] iscsi_interface."


class SessionForeign(Conflict):
    code = "iscsi.foreign-session"
    sentence = "{target} at {portal} is used by somebody else on this host: its {what} is not this agent's."
    hint = "If nothing needs it: iscsiadm -m node -T {target} -p {portal} --logout, then the same with -o delete."


class ConnectFailed(Temporary):
    """Whether a target refuses this host or is only half restored can not be told from what it answers."""

    code = "nvme.connect-failed"
    retry_after = 5.0
    sentence = "No NVMe controller of {target} at {portal}: {reason}."
    hint = "See that the portal can be reached, and that the host NQN in /etc/nvme/hostnqn is the one it is offered to."


class MapFailed(Temporary):
    code = "rbd.map-failed"
    retry_after = 5.0
    sentence = "Image {image} can not be mapped by this host: {reason}."
    hint = "See that its monitors can be reached, and that [connectors] ceph_keyring holds a user who may use the pool."


class LvmUnavailable(Permanent):
    code = "lvm.unavailable"
    status = 501
    sentence = "This host can not work with logical volumes: {reason}."
    hint = "Install the package lvm2 and load device-mapper: modprobe dm-mod dm-thin-pool."


class GroupMissing(Temporary):
    code = "lvm.group-missing"
    retry_after = 30.0
    sentence = "The volume group {group} is not there: {reason}."
    hint = "Look at `vgs` and `pvs` on the host; it is used again as soon as it is back."


class GroupAmbiguous(Permanent):
    code = "lvm.group-ambiguous"
    status = 500
    sentence = "There are several volume groups {group}: on {devices}."
    hint = "Name the devices of the right one in /etc/brickyard/limits.toml: [lvm] devices = [...]."


class VolumeMissing(NotFound):
    code = "lvm.volume-missing"
    sentence = "There is no logical volume {group}/{name}."
    hint = "Look at `lvs -a {group}` on the host."


class GroupFull(Permanent):
    code = "lvm.full"
    status = 507
    sentence = "The volume group {group} has no room for that: {reason}."
    hint = "Delete volumes, or add space: vgextend, or lvextend of the thin pool."


class LvmFailed(Temporary):
    code = "lvm.failed"
    retry_after = 5.0
    sentence = "LVM could not {action} {group}/{name}: {reason}."
    hint = "Run the same on the host to see more; `brickyard-agent doctor` looks at the group."


class NotOnThisPlatform(Permanent):
    code = "device.platform"
    status = 501
    sentence = "{device} is not supported on this platform: the kernel has no channel subsystem."
    hint = "FCP devices and DASDs need Linux on IBM Z (s390x)."


class ShowFailed(Temporary):
    code = "privilege.show-failed"
    retry_after = 10.0
    sentence = "An image of the Ceph cluster can not be shown as a file: {reason}"
    hint = "Run `brickyard-agent doctor`; the words after the colon are QEMU's own."
