"""What gophercloud sends (Terraform's provider, cinder-csi), call by call, and the statuses that it takes for good.

Both of its generations are here: the older one names the API by the catalog's `volumev3`, the newer by `block-storage`;
neither sends a microversion unless its user sets one. `{name}` is an id that an earlier step has brought.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GET, MADE, PUT, DELETE = (200,), (201, 202), (201, 202), (202, 204)
"""What is good where a call says nothing else."""
CONNECTOR = {"ip": "192.0.2.9", "host": "stack", "initiator": "iqn.1994-05.com.redhat:17cf566367d2", "multipath": False,
             "platform": "x86_64", "os_type": "linux2"}  # fmt: skip
SERVER = "83ec2e3b-4321-422b-8706-a84185f52a0a"


@dataclass(frozen=True, slots=True)
class Step:
    """`keep` names an id of the answer: `volume` is that of `{"volume": {"id": ...}}`; `key` has to be in it."""

    name: str
    method: str
    path: str
    good: tuple[int, ...]
    body: Any = None
    version: str | None = None
    keep: str | None = None
    key: str | None = None
    settle: bool = False


def step(name: str, call: str, good: tuple[int, ...], body: Any = None, **rest: Any) -> Step:
    method, path = call.split(" ", 1)
    return Step(name, method, path, good, body, **rest)


def act(name: str, action: str, value: Any, good: tuple[int, ...] = (202,), **rest: Any) -> Step:
    return step(name, "POST volumes/{volume}/action", good, {action: value}, **rest)


SPECS = {"extra_specs": {"capabilities": "gpu"}}
STEPS = (
    step("availabilityzones.List", "GET os-availability-zone", GET, key="availabilityZoneInfo"),
    step("limits.Get", "GET limits", GET, key="limits"),
    step("services.List", "GET os-services", GET, key="services"),
    step("schedulerstats.List", "GET scheduler-stats/get_pools?detail=true", GET, key="pools"),
    step("quotasets.Get", "GET os-quota-sets/{project}", GET, key="quota_set"),
    step("quotasets.GetUsage", "GET os-quota-sets/{project}?usage=true", GET, key="quota_set"),
    step("quotasets.GetDefaults", "GET os-quota-sets/{project}/defaults", GET, key="quota_set"),
    step("quotasets.Update", "PUT os-quota-sets/{project}", (200,), {"quota_set": {"volumes": 20}}, key="quota_set"),
    step("quotasets.Delete", "DELETE os-quota-sets/{project}", (200,)),
    step("volumetypes.Create", "POST types", (200, 201),
         {"volume_type": {"name": "test_type", "os-volume-type-access:is_public": True, "description": "d",
                          "extra_specs": {"capabilities": "gpu"}}}, keep="volume_type"),
    step("volumetypes.List", "GET types?is_public=true&limit=1&sort=name%3Aasc", GET, key="volume_types"),
    step("volumetypes.Get", "GET types/{volume_type}", GET, key="volume_type"),
    step("volumetypes.Update", "PUT types/{volume_type}", (200,), {"volume_type": {"name": "vol-type-002"}},
         key="volume_type"),
    step("volumetypes.ListExtraSpecs", "GET types/{volume_type}/extra_specs", GET, key="extra_specs"),
    step("volumetypes.CreateExtraSpecs", "POST types/{volume_type}/extra_specs", (200,), SPECS, key="extra_specs"),
    step("volumetypes.UpdateExtraSpec", "PUT types/{volume_type}/extra_specs/capabilities", (200,),
         {"capabilities": "gpu-2"}, key="capabilities"),
    step("volumetypes.GetExtraSpec", "GET types/{volume_type}/extra_specs/capabilities", GET, key="capabilities"),
    step("volumetypes.DeleteExtraSpec", "DELETE types/{volume_type}/extra_specs/capabilities", (202,)),
    step("volumetypes.CreateEncryption", "POST types/{volume_type}/encryption", (200, 201),
         {"encryption": {"key_size": 256, "provider": "luks", "control_location": "front-end",
                         "cipher": "aes-xts-plain64"}}, key="encryption"),
    step("volumetypes.GetEncryption", "GET types/{volume_type}/encryption", GET, key="encryption_id"),
    step("volumetypes.GetEncryptionSpec", "GET types/{volume_type}/encryption/cipher", GET, key="cipher"),
    step("qos.Create", "POST qos-specs", (200,),
         {"qos_specs": {"name": "qos-001", "consumer": "front-end", "read_iops_sec": "20000"}}, keep="qos_specs"),
    step("qos.List", "GET qos-specs?limit=1", GET, key="qos_specs"),
    step("qos.Get", "GET qos-specs/{qos_specs}", GET, key="qos_specs"),
    step("qos.Update", "PUT qos-specs/{qos_specs}", (200,), {"qos_specs": {"consumer": "back-end"}}, key="qos_specs"),
    step("qos.DeleteKeys", "PUT qos-specs/{qos_specs}/delete_keys", (202,), {"keys": ["read_iops_sec"]}),
    step("qos.Associate", "GET qos-specs/{qos_specs}/associate?vol_type_id={volume_type}", (202,)),
    step("qos.ListAssociations", "GET qos-specs/{qos_specs}/associations", GET, key="qos_associations"),
    step("qos.Disassociate", "GET qos-specs/{qos_specs}/disassociate?vol_type_id={volume_type}", (202,)),
    step("qos.DisassociateAll", "GET qos-specs/{qos_specs}/disassociate_all", (202,)),
    step("qos.Delete", "DELETE qos-specs/{qos_specs}?force=true", DELETE),
    step("volumes.Create", "POST volumes", (202,),
         {"volume": {"size": 1, "name": "vol-001", "description": "d", "metadata": {"foo": "bar"},
                     "availability_zone": "nova"}}, keep="volume", settle=True),
    step("volumes.Create with hints", "POST volumes", (202,),
         {"volume": {"size": 1, "name": "hinted"}, "OS-SCH-HNT:scheduler_hints": {"same_host": ["{volume}"]}},
         keep="volume as hinted", settle=True),
    step("volumes.Create of a volume", "POST volumes", (202,),
         {"volume": {"source_volid": "{volume}", "name": "clone"}}, keep="volume as clone", settle=True),
    step("volumes.Get", "GET volumes/{volume}", GET, key="volume"),
    step("volumes.List", "GET volumes/detail?all_tenants=true&bootable=false&metadata=%7B%27foo%27%3A%27bar%27%7D"
         "&name=vol-001&sort=created_at%3Adesc&limit=1&status=available&project_id={project}", GET, key="volumes"),
    step("volumes.Update", "PUT volumes/{volume}", (200,),
         {"volume": {"name": "vol-002", "metadata": {"foo": "bar"}}}, key="volume"),
    act("volumes.ExtendSize", "os-extend", {"new_size": 2}, settle=True),
    act("volumes.SetImageMetadata", "os-set_image_metadata", {"metadata": {"label": "test"}}, (200,), key="metadata"),
    act("volumes.SetBootable", "os-set_bootable", {"bootable": True}, (200,)),
    step("volumetypes.Create another", "POST types", (200, 201), {"volume_type": {"name": "plain"}},
         keep="volume_type as plain"),
    act("volumes.ChangeType", "os-retype", {"new_type": "{plain}", "migration_policy": "on-demand"}, settle=True),
    act("volumes.Reserve", "os-reserve", {}, (200, 201, 202)),
    act("volumes.Unreserve", "os-unreserve", {}, (200, 201, 202)),
    act("volumes.InitializeConnection", "os-initialize_connection", {"connector": {**CONNECTOR, "host": "{host}"}},
        (200, 201, 202), key="connection_info"),
    act("volumes.Attach", "os-attach", {"mountpoint": "/mnt", "mode": "rw", "instance_uuid": SERVER}),
    act("volumes.BeginDetaching", "os-begin_detaching", {}),
    act("volumes.Detach", "os-detach", {}),
    act("volumes.TerminateConnection", "os-terminate_connection", {"connector": {**CONNECTOR, "host": "{host}"}}),
    act("volumes.ResetStatus", "os-reset_status", {"status": "available"}),
    act("volumes.UploadImage", "os-volume_upload_image",
        {"container_format": "bare", "disk_format": "raw", "image_name": "test", "force": True,
         "visibility": "private"}, version="3.1", keep="os-volume_upload_image", key="os-volume_upload_image",
        settle=True),
    act("volumes.ReImage", "os-reimage", {"image_id": "{image}", "reimage_reserved": False}, version="3.68",
        settle=True),
    step("attachments.Create", "POST attachments", (200, 202),
         {"attachment": {"volume_uuid": "{volume}", "instance_uuid": SERVER, "mode": "rw"}}, version="3.54",
         keep="attachment"),
    step("attachments.List", "GET attachments/detail?all_tenants=true&status=reserved&volume_id={volume}&limit=1"
         "&instance_id=" + SERVER, GET, version="3.27", key="attachments"),
    step("attachments.Get", "GET attachments/{attachment}", GET, version="3.27", key="attachment"),
    step("attachments.Update", "PUT attachments/{attachment}", (200,),
         {"attachment": {"connector": {**CONNECTOR, "host": "{host}"}}}, version="3.27", key="attachment"),
    step("attachments.Complete", "POST attachments/{attachment}/action", (204,), {"os-complete": None},
         version="3.44"),
    step("attachments.Delete", "DELETE attachments/{attachment}", (200,), version="3.27"),
    step("snapshots.Create", "POST snapshots", MADE,
         {"snapshot": {"volume_id": "{volume}", "name": "snapshot-001", "force": True, "metadata": {"a": "b"}}},
         keep="snapshot", settle=True),
    step("snapshots.Get", "GET snapshots/{snapshot}", GET, key="snapshot"),
    step("snapshots.List", "GET snapshots?all_tenants=true&name=snapshot-001&status=available&limit=1"
         "&volume_id={volume}", GET, key="snapshots"),
    step("snapshots.ListDetail", "GET snapshots/detail?limit=1", GET, key="snapshots"),
    step("snapshots.Update", "PUT snapshots/{snapshot}", (200,), {"snapshot": {"name": "snapshot-002"}},
         key="snapshot"),
    step("snapshots.UpdateMetadata", "PUT snapshots/{snapshot}/metadata", (200,), {"metadata": {"key": "v1"}},
         key="metadata"),
    step("snapshots.ResetStatus", "POST snapshots/{snapshot}/action", (202,),
         {"os-reset_status": {"status": "available"}}),
    step("volumes.Create of a snapshot", "POST volumes", (202,),
         {"volume": {"snapshot_id": "{snapshot}", "name": "copy"}}, keep="volume as copy", settle=True),
    step("snapshots.ForceDelete", "POST snapshots/{snapshot}/action", MADE, {"os-force_delete": {}}, settle=True),
    step("transfers.Create", "POST os-volume-transfer", MADE, {"transfer": {"volume_id": "{clone}", "name": "gift"}},
         keep="transfer"),
    step("transfers.List", "GET os-volume-transfer/detail?all_tenants=true&sort=created_at%3Aasc&limit=1", GET,
         key="transfers"),
    step("transfers.Get", "GET os-volume-transfer/{transfer}", GET, key="transfer"),
    step("transfers.Delete", "DELETE os-volume-transfer/{transfer}", DELETE),
    step("transfers.Create again", "POST os-volume-transfer", MADE, {"transfer": {"volume_id": "{clone}"}},
         keep="transfer"),
    step("transfers.Accept", "POST os-volume-transfer/{transfer}/accept", MADE,
         {"accept": {"auth_key": "{auth_key}"}}),
    act("volumes.Unmanage", "os-unmanage", {}, settle=True),
    step("manageablevolumes.ManageExisting", "POST manageable_volumes", (202,),
         {"volume": {"host": "{pool}", "ref": {"source-name": "{left}"}, "name": "back", "metadata": {"a": "b"},
                     "availability_zone": "nova", "bootable": True}}, version="3.8", keep="volume as back",
         settle=True),
    step("volumes.ForceDelete", "POST volumes/{back}/action", MADE, {"os-force_delete": ""}, settle=True),
    step("volumes.Delete", "DELETE volumes/{copy}", DELETE, settle=True),
    step("volumes.Delete with snapshots", "DELETE volumes/{clone}?cascade=true", DELETE, settle=True),
    step("volumetypes.Update to private", "PUT types/{volume_type}", (200,), {"volume_type": {"is_public": False}}),
    step("volumetypes.AddAccess", "POST types/{volume_type}/action", (202,),
         {"addProjectAccess": {"project": "{project}"}}),
    step("volumetypes.ListAccesses", "GET types/{volume_type}/os-volume-type-access", GET, key="volume_type_access"),
    step("volumetypes.RemoveAccess", "POST types/{volume_type}/action", (202,),
         {"removeProjectAccess": {"project": "{project}"}}),
    step("volumetypes.DeleteEncryption", "DELETE types/{volume_type}/encryption/provider", DELETE),
    step("volumetypes.Delete", "DELETE types/{volume_type}", DELETE),
    step("volumetypes.Delete another", "DELETE types/{plain}", DELETE),
)  # fmt: skip
