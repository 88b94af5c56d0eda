"""The commands that are refused, by the reason that the page gives; `nothing` is a name that nothing has."""

from __future__ import annotations

_MOVES = "volumes are not moved between back ends by this release"
_FAILOVER = "the back end does not replicate, so there is nothing to fail over to"
_NOT_EXTENDING = "no server is being told of a new size, so there is none to end"
_NOT_BEING_MADE = "the snapshot is not being made or deleted; `os-reset_status` is for the rest"
_NO_CLUSTER = "the site has no cluster of this name"
_NO_COMPUTE = "the client asks a compute service for the server first, and the site has none"
_BACKUPS = "this release serves no backups"
_CONSISTENCY = "consistency groups have given way to groups, and this release serves none"
_GROUPS = "this release serves no groups of volumes"
CINDER = {
    _MOVES: """
migrate {fifth} {backend}
""",
    _FAILOVER: """
failover-host {backend}
""",
    _NO_CLUSTER: """
cluster-show nothing
cluster-disable nothing
cluster-enable nothing
""",
    _BACKUPS: """
backup-create {fifth}
backup-delete nothing
backup-export nothing
backup-import a b
backup-list
backup-reset-state nothing
backup-restore nothing
backup-show nothing
backup-update nothing --name x
""",
    _CONSISTENCY: """
cgsnapshot-create nothing
cgsnapshot-delete nothing
cgsnapshot-list
cgsnapshot-show nothing
consisgroup-create __DEFAULT__
consisgroup-create-from-src --cgsnapshot nothing
consisgroup-delete nothing
consisgroup-list
consisgroup-show nothing
consisgroup-update nothing --name x
""",
    _GROUPS: """
group-create nothing __DEFAULT__
group-create-from-src --group-snapshot nothing
group-delete nothing
group-disable-replication nothing
group-enable-replication nothing
group-failover-replication nothing
group-list
group-list-replication-targets nothing
group-show nothing
group-snapshot-create nothing
group-snapshot-delete nothing
group-snapshot-list
group-snapshot-show nothing
group-specs-list
group-type-create a
group-type-default
group-type-delete nothing
group-type-key nothing set a=b
group-type-list
group-type-show nothing
group-type-update nothing --name x
group-update nothing --name x
""",
}
OPENSTACK = {
    _MOVES: """
volume migrate {fifth} --host {backend}
""",
    _FAILOVER: """
volume host failover {backend} --volume-backend other
""",
    _NO_CLUSTER: """
block storage cluster show nothing
block storage cluster set nothing --disable
""",
    _NO_COMPUTE: """
volume attachment create {fifth} --server {instance}
""",
    _BACKUPS: """
volume backup create {fifth}
volume backup delete nothing
volume backup list
volume backup record export nothing
volume backup record import a b
volume backup restore nothing
volume backup set nothing --name x
volume backup show nothing
volume backup unset nothing --property a
""",
    _CONSISTENCY: """
consistency group add volume nothing {fifth}
consistency group create --volume-type gold
consistency group delete nothing
consistency group list
consistency group remove volume nothing {fifth}
consistency group set nothing --name x
consistency group show nothing
consistency group snapshot create --consistency-group nothing
consistency group snapshot delete nothing
consistency group snapshot list
consistency group snapshot show nothing
""",
    _GROUPS: """
volume group add volume nothing {fifth}
volume group create --volume-group-type nothing --volume-type __DEFAULT__
volume group delete nothing
volume group failover nothing
volume group list
volume group remove volume nothing {fifth}
volume group set nothing --name x
volume group show nothing
volume group snapshot create nothing
volume group snapshot delete nothing
volume group snapshot list
volume group snapshot show nothing
volume group type create a
volume group type delete nothing
volume group type list
volume group type set nothing --name x
volume group type show nothing
""",
}
SDK = {
    _MOVES: """
complete_volume_migration(fifth, fifth)
migrate_volume(fifth, host=backend)
""",
    _FAILOVER: """
failover_service(service, backend_id="other")
""",
    _NOT_EXTENDING: """
complete_volume_extend(fifth)
""",
    _NOT_BEING_MADE: """
set_snapshot_status(snap_of_fifth, "error")
""",
    _NO_CLUSTER: """
get_cluster("nothing")
enable_cluster(cluster_object)
disable_cluster(cluster_object)
""",
    _BACKUPS: """
backups()
create_backup(volume_id=fifth)
delete_backup("nothing", ignore_missing=False)
delete_backup_metadata("nothing", ["a"])
export_backup("nothing")
export_record("nothing")
fetch_backup_metadata("nothing")
find_backup("nothing", ignore_missing=False)
get_backup("nothing")
get_backup_metadata("nothing")
import_backup("a", "b")
reset_backup("nothing", "available")
reset_backup_status("nothing", "available")
restore_backup("nothing", name="x")
set_backup_metadata("nothing", a="b")
update_backup("nothing", name="x")
""",
    _CONSISTENCY: """
consistency_groups()
consistency_group_snapshots()
create_consistency_group(volume_types="gold")
create_consistency_group_from_source(consistency_group_snapshot="nothing")
create_consistency_group_snapshot(consistencygroup_id="nothing")
delete_consistency_group(consistency_group_object)
delete_consistency_group_snapshot("nothing", ignore_missing=False)
find_consistency_group("nothing", ignore_missing=False)
find_consistency_group_snapshot("nothing", ignore_missing=False)
get_consistency_group("nothing")
get_consistency_group_snapshot("nothing")
update_consistency_group(consistency_group_object, name="x")
""",
    _GROUPS: """
groups()
create_group(group_type="nothing", volume_types=["gold"])
create_group_from_source(group_snapshot_id="nothing", source_group_id=None)
delete_group("nothing", ignore_missing=False)
disable_group_replication("nothing")
enable_group_replication("nothing")
failover_group_replication("nothing")
find_group("nothing", ignore_missing=False)
get_group("nothing")
reset_group_state("nothing", "available")
reset_group_status("nothing", "available")
update_group("nothing", name="x")
group_snapshots()
create_group_snapshot(group_id="nothing")
delete_group_snapshot("nothing", ignore_missing=False)
find_group_snapshot("nothing", ignore_missing=False)
get_group_snapshot("nothing")
reset_group_snapshot_state("nothing", "available")
reset_group_snapshot_status("nothing", "available")
group_types()
create_group_type(name="a")
create_group_type_group_specs("nothing", {"a": "b"})
delete_group_type("nothing", ignore_missing=False)
delete_group_type_group_specs_property("nothing", "a", ignore_missing=False)
fetch_group_type_group_specs("nothing")
find_group_type("nothing", ignore_missing=False)
get_group_type("nothing")
get_group_type_group_specs_property("nothing", "a")
update_group_type("nothing", name="x")
update_group_type_group_specs_property("nothing", "a", "b")
""",
}
CLOUD = {
    _NO_COMPUTE: """
attach_volume(server, second_volume)
detach_volume(server, second_volume)
""",
    _BACKUPS: """
create_volume_backup(fifth)
delete_volume_backup("nothing")
export_volume_backup("nothing")
get_volume_backup("nothing")
list_volume_backups()
search_volume_backups("nothing")
""",
}
