"""Every call of openstacksdk's block storage proxy, as one would write it; a name is one of `places.PLACES`, or of
`OBJECTS` here where the SDK wants its own object."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any

from tests.clients import places
from tests.clients.livesite import LiveSite

SDK = """
availability_zones()
backend_pools()
get_capabilities(backend)
extensions()
resource_filters()
get_limits()
services()
find_service("cinder-volume", host=backend)
disable_service(service, reason="because")
enable_service(service)
freeze_service(service)
thaw_service(service)
set_service_log_levels(level="INFO", binary="cinder-volume")
get_service_log_levels(binary="cinder-volume")
cleanup_service_workers(binary=None, host=None, cluster_name=None)
clusters()
find_cluster("nothing")
get_quota_set(project, usage=True)
get_quota_set_defaults(project)
update_quota_set(project, volumes=100)
revert_quota_set(project)
get_quota_class_set("default")
update_quota_class_set("default", snapshots=50)
create_type(name="gold", description="first", extra_specs={"a": "b"})
types()
get_type(gold)
find_type("gold")
update_type(gold, description="second")
update_type_extra_specs(gold, c="d")
delete_type_extra_specs(gold, ["a", "c"])
create_type_encryption(secretive, provider="luks", cipher="aes-xts-plain64", key_size=256, control_location="front-end")
get_type_encryption(secretive)
update_type_encryption(volume_type=secretive, key_size=512)
delete_type_encryption(volume_type=secretive)
create_type(name="private", is_public=False)
add_type_access(private, project)
get_type_access(private)
remove_type_access(private, project)
delete_type(private)
set_default_type(project, gold)
show_default_type(project)
default_types()
unset_default_type(project)
create_qos_spec(name="fast", consumer="front-end", total_iops_sec="500")
qos_specs()
get_qos_spec(qos)
find_qos_spec("fast")
update_qos_spec(qos_object, read_iops_sec="100")
delete_qos_spec_metadata(qos, ["read_iops_sec"])
associate_qos_spec(qos, gold)
qos_spec_associations(qos)
disassociate_qos_spec(qos, gold)
disassociate_all_qos_spec(qos)
delete_qos_spec(qos)
create_volume(size=1, name="second", metadata={"a": "b"})
volumes()
get_volume(second)
find_volume("second")
update_volume(second, description="told")
set_volume_metadata(second, k="v")
get_volume_metadata(second)
fetch_volume_metadata(second)
delete_volume_metadata(second, ["k"])
set_volume_image_metadata(second, os="linux")
delete_volume_image_metadata(second, ["os"])
set_volume_bootable_status(second, True)
set_volume_readonly(second, False)
summary(False)
extend_volume(second, 2)
retype_volume(second, "gold")
reset_volume_status(second, status="available")
reserve_volume(second)
unreserve_volume(second)
reserve_volume(second)
init_volume_attachment(second, connector)
attach_volume(second, "/dev/vdb", instance=instance)
begin_volume_detaching(second)
abort_volume_detaching(second)
detach_volume(second, attached, force=True)
terminate_volume_attachment(second, connector)
create_attachment(second, connector=None, instance=instance)
attachments()
get_attachment(attachment)
update_attachment(attachment, connector=connector)
complete_attachment(attachment)
delete_attachment(attachment)
create_snapshot(volume_id=second, name="snap")
snapshots()
get_snapshot(snap)
find_snapshot("snap")
update_snapshot(snap, description="told")
set_snapshot_metadata(snap, k="v")
get_snapshot_metadata(snap)
fetch_snapshot_metadata(snap)
delete_snapshot_metadata(snap, ["k"])
reset_snapshot(snap, "available")
reset_snapshot_status(snap, "available")
revert_volume_to_snapshot(second, snap)
manageable_snapshots(host=pool)
unmanage_snapshot(snap)
manage_snapshot(volume_id=second, ref={"source-name": left}, name="snap")
delete_snapshot(snap)
create_transfer(volume_id=second, name="gift")
transfers()
get_transfer(transfer)
find_transfer("gift")
delete_transfer(transfer)
accept_transfer(offer, offer_key)
upload_volume_to_image(fifth, "picture", disk_format="raw", container_format="bare")
create_image("picture2", fifth, False, "bare", "raw", True, 60)
messages()
get_message(message)
delete_message(message)
manageable_volumes(host=pool)
create_volume(size=1, name="third")
unmanage_volume(third)
manage_volume(host=pool, ref={"source-name": left_volume}, name="fourth")
wait_for_status(fourth_object, "available")
delete_volume(second)
wait_for_delete(second_object)
delete_type(gold)
"""


CLOUD = """
create_volume(size=1, name="second", wait=True)
list_volumes()
search_volumes("second")
get_volume("second")
get_volume_by_id(second)
get_volume_id("second")
get_volumes(server)
get_volume_attach_device(second_volume, instance)
volume_exists("second")
update_volume("second", description="told")
set_volume_bootable("second", True)
list_volume_types()
search_volume_types("__DEFAULT__")
get_volume_type("__DEFAULT__")
get_volume_limits()
get_volume_quotas(project)
set_volume_quotas(project, volumes=100)
delete_volume_quotas(project)
create_volume_snapshot(second, force=True, wait=True, name="snap")
list_volume_snapshots()
search_volume_snapshots("snap")
get_volume_snapshot("snap")
get_volume_snapshot_by_id(snap)
delete_volume_snapshot("snap", wait=True)
add_volume_type_access(private_made, project)
get_volume_type_access("hidden")
remove_volume_type_access("hidden", project)
delete_volume("second", wait=True)
create_volume(size=1, name="second", wait=True)
"""


def connection(site: LiveSite) -> Any:
    import openstack

    return openstack.connection.Connection(
        session=site.session(), region_name="RegionOne", block_storage_api_version="3",
        block_storage_default_microversion="3.71",
    )  # fmt: skip


def cloud_commands() -> set[str]:
    """All for block storage that the layer above the proxies has."""
    from openstack.cloud._block_storage import BlockStorageCloudMixin

    return {name for name, found in vars(BlockStorageCloudMixin).items() if callable(found) and name[0] != "_"}


def commands() -> set[str]:
    """All that the proxy has."""
    from openstack.block_storage.v3._proxy import Proxy

    return {name for name, found in vars(Proxy).items() if callable(found) and not name.startswith("_")}


def run(site: LiveSite, proxy: Any, line: str) -> None:
    """Do one line; a list is read to its end. Raises LookupError for a name that nothing is found for."""
    call = ast.parse(line, mode="eval").body
    assert isinstance(call, ast.Call)
    assert isinstance(call.func, ast.Name)
    words = [_value(site, proxy, node) for node in call.args]
    named = {item.arg or "": _value(site, proxy, item.value) for item in call.keywords}
    made = getattr(proxy, call.func.id)(*words, **named)
    if isinstance(made, Iterator):
        list(made)


def _value(site: LiveSite, proxy: Any, node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return OBJECTS[node.id](proxy) if node.id in OBJECTS else PLACES[node.id](site)
    if isinstance(node, ast.Dict):
        return {_value(site, proxy, key): _value(site, proxy, value)
                for key, value in zip(node.keys, node.values, strict=True) if key is not None}  # fmt: skip
    return ast.literal_eval(node)


def _service(proxy: Any) -> Any:
    return next(item for item in proxy.services() if item.binary == "cinder-volume")


def _attached(proxy: Any) -> str:
    return str(proxy.find_volume("second").attachments[0]["attachment_id"])


def _connector(proxy: Any) -> dict[str, str]:
    host = str(next(proxy.backend_pools()).name).partition("@")[0]
    return {"host": host, "ip": "192.0.2.1", "initiator": "iqn.2004-10.org.example:h"}


def _snap_of_fifth(site: LiveSite) -> str:
    volume = PLACES["fifth"](site)
    made: str = site.call("POST", "/v3/snapshots", json={"snapshot": {"volume_id": volume}})[1]["snapshot"]["id"]
    site.settled()
    return made


def _unknown(kind: str, name: str) -> Callable[[Any], Any]:
    def make(_proxy: Any) -> Any:
        from importlib import import_module

        return getattr(import_module(f"openstack.block_storage.v3.{kind}"), name).new(id="nothing", name="nothing")

    return make


def _private_made(site: LiveSite) -> str:
    body = {"volume_type": {"name": "hidden", "os-volume-type-access:is_public": False}}
    return str(site.call("POST", "/v3/types", json=body)[1]["volume_type"]["name"])


OBJECTS: dict[str, Callable[[Any], Any]] = {
    "server": lambda _: {"id": places.PLACES["instance"](_)},
    "second_volume": lambda cloud: cloud.get_volume("second"),
    "service": _service,
    "attached": _attached,
    "qos_object": lambda proxy: proxy.find_qos_spec("fast"),
    "second_object": lambda proxy: proxy.find_volume("second") or _unknown("volume", "Volume")(proxy),
    "fourth_object": lambda proxy: proxy.find_volume("fourth"),
    "cluster_object": _unknown("cluster", "Cluster"),
    "consistency_group_object": _unknown("consistency_group", "ConsistencyGroup"),
    "connector": _connector,
}
PLACES: dict[str, Callable[[LiveSite], str]] = {
    **places.PLACES,
    "snap": places.first("/v3/snapshots", "snapshots", name="snap"),
    "secretive": places.first("/v3/types", "volume_types", name="secretive"),
    "private": places.first("/v3/types?is_public=none", "volume_types", name="private"),
    "snap_of_fifth": _snap_of_fifth,
    "private_made": _private_made,
}
