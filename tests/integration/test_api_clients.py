"""The real clients on types, quotas and services: openstack, cinder, the SDK with tokens, http_basic and none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.identity.bootstrap import ADMIN_PROJECT_ID
from tests.integration.apiserver import PASSWORD, running
from tests.integration.test_api_types import P1, fleet, people

pytestmark = pytest.mark.clients
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("clients")) as server:
        from coordinator.identity import passwords

        people(server.db, passwords.hashed(PASSWORD, 4))
        fleet(server.db)
        yield server


def run(server, tool, *words, who="admin", project="admin", version=None, fails=False):
    env = {**os.environ, **server.openrc(who, project)}
    if version is not None:
        env["OS_VOLUME_API_VERSION"] = version
    done = subprocess.run([BIN / tool, *words], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == fails, done.stderr + done.stdout
    return done.stderr if fails else done.stdout


def test_openstack(server):
    made = json.loads(run(server, "openstack", "volume", "type", "create", "gold", "--property", "a=b",
                          "--encryption-provider", "luks", "--encryption-cipher", "aes-xts-plain64",
                          "--encryption-key-size", "256", "--encryption-control-location", "front-end",
                          "-f", "json"))  # fmt: skip
    assert made["name"] == "gold"
    rows = json.loads(run(server, "openstack", "volume", "type", "list", "--encryption-type", "-f", "json"))
    assert {row["Name"] for row in rows} == {"gold"}
    assert "luks" in str(rows)
    shown = json.loads(
        run(server, "openstack", "volume", "type", "show", "gold", "-f", "json", who="alice", project="one")
    )
    assert shown["properties"] == {}
    refused = run(server, "openstack", "volume", "type", "create", "x", who="alice", project="one", fails=True)
    assert "403" in refused or "Policy" in refused
    run(server, "openstack", "volume", "type", "delete", "gold")
    services = json.loads(run(server, "openstack", "volume", "service", "list", "-f", "json"))
    assert {row["Host"] for row in services} >= {"host-a@file", "host-b@file"}
    run(server, "openstack", "quota", "set", "--volumes", "3", "one")
    assert "3" in run(server, "openstack", "quota", "show", "--volume", "one", "-f", "json")


@pytest.mark.parametrize("version", ["3.0", "3.71"])
def test_cinder(server, version):
    run(server, "cinder", "type-create", f"t-{version}", version=version)
    assert f"t-{version}" in run(server, "cinder", "type-list", version=version, who="alice", project="one")
    run(server, "cinder", "type-key", f"t-{version}", "set", "k=v", version=version)
    assert "'k': 'v'" in run(server, "cinder", "extra-specs-list", version=version)
    assert "host-a@file" in run(server, "cinder", "service-list", version=version)
    assert "host-a@file#p" in run(server, "cinder", "get-pools", "--detail", version=version)
    assert "maxTotalVolumes" in run(server, "cinder", "absolute-limits", version=version, who="alice", project="one")
    run(server, "cinder", "type-delete", f"t-{version}", version=version)
    assert "ERROR" in run(server, "cinder", "type-create", "x", version=version, who="rob", project="one", fails=True)


def types_by(cloud):
    made = cloud.block_storage.create_type(name="sdk")
    found = [item.name for item in cloud.block_storage.types()]
    cloud.block_storage.delete_type(made)
    cloud.close()
    return found


def test_sdk_with_a_token(server):
    from openstack.connection import Connection

    cloud = Connection(
        auth_url=f"{server.url}/identity", username="admin", password=PASSWORD, project_name="admin",
        user_domain_name="Default", project_domain_name="Default", block_storage_default_microversion="3.71",
    )  # fmt: skip
    assert "sdk" in types_by(cloud)


@pytest.mark.parametrize("path", ["/v3", f"/v3/{ADMIN_PROJECT_ID}"])
def test_sdk_with_http_basic(server, path):
    from openstack.connection import Connection

    cloud = Connection(
        auth_type="http_basic", auth={"username": "admin", "password": PASSWORD, "endpoint": server.url + path},
        block_storage_endpoint_override=server.url + path, region_name="x",
    )  # fmt: skip
    assert "sdk" in types_by(cloud)


def test_sdk_with_none(tmp_path):
    from openstack.connection import Connection

    with running(tmp_path, strategy="none") as server:
        for path in ("/v3", f"/v3/{ADMIN_PROJECT_ID}"):
            cloud = Connection(
                auth_type="none", auth={"endpoint": server.url + path},
                block_storage_endpoint_override=server.url + path, region_name="x",
            )  # fmt: skip
            assert "sdk" in types_by(cloud)


def test_cinderclient_in_process(server):
    from cinderclient import client
    from keystoneauth1 import session
    from keystoneauth1.identity.v3 import Password

    auth = Password(
        f"{server.url}/identity/v3", username="alice", password=PASSWORD, project_id=P1, user_domain_id="default"
    )
    cinder = client.Client("3.71", session=session.Session(auth))
    assert cinder.limits.get().to_dict()["absolute"]["maxTotalVolumes"] in {3, 10}
    assert cinder.quotas.get(P1, usage=True).to_dict()["volumes"]["in_use"] == 0
    assert cinder.messages.list() == []
    assert [zone.zoneName for zone in cinder.availability_zones.list()] == ["nova"]
    with pytest.raises(Exception, match="403"):
        cinder.volume_types.create("x")
    with pytest.raises(Exception, match="404"):
        cinder.volume_types.get("00000000-0000-0000-0000-000000000000")
