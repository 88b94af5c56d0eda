"""Every command of the real clients for what this release serves, in an order in which each has something to work on.

`{name}` in a command is an id that `PLACES` looks up when its turn comes. What is refused is in `matrix_refused`;
both together have to be all that the client has.
"""

from __future__ import annotations

from tests.clients.livesite import LiveSite
from tests.clients.places import PLACES

CINDER = """
help create
bash-completion
list-extensions
version-list
api-version
absolute-limits
rate-limits
availability-zone-list
list-filters
get-pools --detail
get-capabilities {backend}
service-list
service-disable {backend} cinder-volume --reason because
service-enable {backend} cinder-volume
quota-show {project}
quota-usage {project}
quota-defaults {project}
quota-update --volumes 100 {project}
quota-class-show default
quota-class-update default --snapshots 50
type-create gold --description first
type-list
type-show gold
type-default
type-update --description second {gold}
type-key gold set RESKEY:availability_zones=nova
extra-specs-list
type-key gold unset RESKEY:availability_zones
encryption-type-create secretive luks --cipher aes-xts-plain64 --key-size 256 --control-location front-end
encryption-type-show secretive
encryption-type-list
encryption-type-update secretive --key-size 512
encryption-type-delete secretive
type-create private --is-public false
type-access-add --volume-type private --project-id {project}
type-access-list --volume-type private
type-access-remove --volume-type private --project-id {project}
qos-create fast consumer=front-end total_iops_sec=500
qos-list
qos-show {qos}
qos-key {qos} set read_iops_sec=100
qos-associate {qos} {gold}
qos-get-association {qos}
qos-disassociate {qos} {gold}
qos-disassociate-all {qos}
qos-delete {qos}
default-type-set gold {project}
default-type-list
default-type-unset {project}
create 1 --name first
list
show first
rename first second
metadata second set k=v
metadata-show second
metadata-update-all second l=w
image-metadata second set os=linux
image-metadata-show second
set-bootable second true
readonly-mode-update second false
extend second 2
summary
retype second gold
snapshot-create second --name snap
snapshot-list
snapshot-show snap
snapshot-rename snap snap2
snapshot-metadata snap2 set k=v
snapshot-metadata-show snap2
snapshot-metadata-update-all snap2 l=w
snapshot-reset-state snap2 --state available
snapshot-delete snap2
reset-state second --state available
attachment-create second {instance}
attachment-list
attachment-show {attachment}
attachment-update {attachment} --host {host} --initiator iqn.2004-10.org.example:h
attachment-complete {attachment}
attachment-delete {attachment}
snapshot-create second --name snap
revert-to-snapshot snap
snapshot-manageable-list {pool}
snapshot-unmanage snap
snapshot-manage {second} {left}
snapshot-delete {managed_snapshot}
transfer-create second --name gift
transfer-list
transfer-show gift
transfer-delete gift
transfer-accept {offer} {offer_key}
upload-to-image {fifth} picture
reimage second {image}
message-list
message-show {message}
message-delete {message}
freeze-host {backend}
thaw-host {backend}
service-set-log INFO --binary cinder-volume
service-get-log --binary cinder-volume
work-cleanup
cluster-list
manageable-list {pool}
create 1 --name third
unmanage {third}
manage {pool} {left_volume} --name fourth
force-delete fourth
delete second
type-delete gold
quota-delete {project}
"""
OPENSTACK = """
volume service list
volume service set --disable {backend} cinder-volume
volume service set --enable {backend} cinder-volume
volume backend pool list --long
volume backend capability show {backend}
availability zone list --volume
volume type create gold --property a=b
volume type list --long
volume type show gold
volume type set --description second gold
volume type unset --property a gold
volume qos create --consumer front-end --property total_iops_sec=500 fast
volume qos list
volume qos show fast
volume qos set --property read_iops_sec=100 fast
volume qos associate fast gold
volume qos disassociate --volume-type gold fast
volume qos unset --property read_iops_sec fast
volume qos delete fast
volume create --size 1 --type gold --property k=v first
volume list --long
volume show first
volume set --name second --property l=w first
volume unset --property l second
volume summary
volume snapshot create --volume second snap
volume snapshot list --long
volume snapshot show snap
volume snapshot set --property k=v snap
volume snapshot unset --property k snap
volume snapshot delete snap
volume attachment list
volume attachment show {attachment}
volume attachment delete {attachment}
volume transfer request create second --name gift
volume transfer request list
volume transfer request show gift
volume transfer request delete {transfer}
volume transfer request accept {offer} --auth-key {offer_key}
volume message list
volume message show {message}
volume message delete {message}
volume attachment set {attachment} --host {host} --initiator iqn.2004-10.org.example:h
volume attachment complete {attachment}
volume attachment delete {attachment}
volume snapshot create --volume second snap
volume revert snap
block storage snapshot manageable list {pool}
volume snapshot delete snap
block storage volume manageable list {pool}
block storage resource filter list
block storage resource filter show volume
block storage log level list --service cinder-volume
block storage log level set INFO --service cinder-volume
block storage cluster list
block storage cleanup --cluster nothing --host {backend} --binary cinder-volume
volume host set --disable {backend}
volume host set --enable {backend}
volume delete second
volume type delete gold
"""
OPENSTACK_BESIDE = """
versions show --service block-storage
extension list --volume
limits show --absolute
quota set --volumes 100 {project}
quota show --volume {project}
quota list --volume
quota delete --volume {project}
image create --volume {fifth} picture
project cleanup --dry-run --auth-project
"""
MEMBER_CINDER = """
absolute-limits
availability-zone-list
list-filters --resource volume
type-list
type-show __DEFAULT__
type-default
create 1 --name first --metadata a=b
list
list --name first --status available --metadata a=b --bootable false --sort name:asc,size:desc --limit 5
list --filters name~=fir --filters created_at=gt:2020-01-01T00:00:00 --with-count
list --all-tenants
show first
rename first second
metadata second set k=v
metadata second unset k
metadata-show second
extend second 2
summary
snapshot-create second --name snap
snapshot-list
snapshot-list --name snap --status available --volume-id second --sort name --limit 5 --with-count
snapshot-list --filters name~=sna --all-tenants
snapshot-show snap
snapshot-rename snap snap2
snapshot-metadata snap2 set k=v
snapshot-delete snap2
transfer-create second --name gift
transfer-list
transfer-list --filters name=gift --sort name:asc
transfer-show gift
transfer-delete gift
attachment-list
attachment-list --status reserved --volume-id second
message-list
message-list --resource_type VOLUME --sort created_at:asc --filters message_level=ERROR
delete second
"""


MEMBER_OPENSTACK = """
limits show --absolute
availability zone list --volume
volume type list
volume type show __DEFAULT__
volume create --size 1 --property a=b first
volume list --long
volume list --name first --status available --property a=b --limit 5
volume show first
volume set --name second first
volume snapshot create --volume second snap
volume snapshot list --name snap --status available --volume second --limit 5
volume snapshot show snap
volume snapshot set --name snap2 snap
volume snapshot delete snap2
volume transfer request create second --name gift
volume transfer request list
volume transfer request show gift
volume transfer request delete {anybodys}
volume attachment list
volume message list
volume summary
block storage resource filter list
volume delete second
"""


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def filled(site: LiveSite, line: str) -> list[str]:
    """The words of a command with ids in their places."""
    return [PLACES[word[1:-1]](site) if word.startswith("{") else word for word in line.split()]


def name(line: str, known: set[str]) -> str:
    """Which command of `openstack` a line is."""
    words = line.split()
    return next(" ".join(words[:count]) for count in range(len(words), 0, -1) if " ".join(words[:count]) in known)


def cinder_commands() -> set[str]:
    """All that the shell has."""
    from cinderclient.shell import OpenStackCinderShell
    from cinderclient.v3 import shell
    from cinderclient.v3.contrib import list_extensions

    words = {*vars(shell), *vars(list_extensions), *vars(OpenStackCinderShell)}
    return {word.removeprefix("do_").replace("_", "-") for word in words if word.startswith("do_")}


BESIDE = frozenset({"extension list", "limits show", "versions show", "project cleanup", "image create",
                    "quota delete", "quota list", "quota set", "quota show"})  # fmt: skip
"""Commands of `openstack` for several services, this one among them."""


def openstack_commands() -> set[str]:
    """All for block storage that the client has."""
    from importlib.metadata import entry_points

    found = {entry.name.replace("_", " ") for entry in entry_points(group="openstack.volume.v3")}
    return {*found, "availability zone list"}
