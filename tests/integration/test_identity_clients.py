"""Logging in with real clients: openstackclient, keystoneauth, openstacksdk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.apiserver import PASSWORD, running

pytestmark = pytest.mark.clients
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("identity")) as server:
        yield server


def openstack(server, *words, fails=False, form="json", **who):
    env = {**os.environ, **server.openrc(**who)}
    done = subprocess.run(
        [BIN / "openstack", *words, *(["-f", form] if form else [])],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else (json.loads(done.stdout) if form == "json" and done.stdout else done.stdout)


def test_an_administrator_makes_projects_users_and_roles(server):
    assert "admin" in {row["Name"] for row in openstack(server, "project", "list")}
    project = openstack(server, "project", "create", "red", "--description", "Red")
    user = openstack(server, "user", "create", "rita", "--project", "red", "--password", "long enough")
    assert openstack(server, "role", "add", "--project", "red", "--user", "rita", "member", form=None) == ""
    assert {row["Name"] for row in openstack(server, "user", "list")} >= {"admin", "rita"}
    assert openstack(server, "user", "show", "rita")["id"] == user["id"]
    held = openstack(server, "role", "assignment", "list", "--names", "--user", "rita")
    assert [(row["Role"], row["Project"]) for row in held] == [("member", "red@Default")]
    token = openstack(server, "token", "issue", user="rita", project="red", password="long enough")
    assert token["project_id"] == project["id"]
    assert "403" in openstack(server, "user", "list", fails=True, user="rita", project="red", password="long enough")
    names = {row["Name"] for row in openstack(server, "catalog", "list")}
    assert names == {"keystone", "cinder", "glance"}
    openstack(server, "user", "set", "--password", "another one", "rita", form=None)
    openstack(server, "token", "issue", fails=True, user="rita", project="red", password="long enough")
    openstack(server, "user", "delete", "rita", form=None)
    openstack(server, "project", "delete", "red", form=None)


def test_the_sdk_logs_in(server):
    import openstack as sdk

    rc = server.openrc()
    cloud = sdk.connection.Connection(
        auth_url=rc["OS_AUTH_URL"], username="admin", password=PASSWORD, project_name="admin",
        user_domain_name="Default", project_domain_name="Default", region_name="RegionOne",
    )  # fmt: skip
    assert next(project.name for project in cloud.identity.projects()) == "admin"
    assert cloud.block_storage.get_endpoint().startswith(server.url + "/v3")
    cloud.close()


def test_system_scope_and_rescoping(server):
    from keystoneauth1 import session
    from keystoneauth1.identity.v3 import Password, Token

    url = f"{server.url}/identity/v3"
    system = session.Session(
        Password(url, username="admin", password=PASSWORD, user_domain_id="default", system_scope="all")
    )
    assert system.get(f"{url}/users").json()["users"]
    unscoped = session.Session(
        Password(url, username="admin", password=PASSWORD, user_domain_id="default", unscoped=True)
    )
    token = unscoped.get_token()
    scoped = session.Session(Token(url, token=token, project_name="admin", project_domain_id="default"))
    assert scoped.get(f"{url}/auth/projects").json()["projects"][0]["name"] == "admin"
    access = scoped.auth.get_access(scoped)
    assert set(access.role_names) == {"admin", "member", "reader"}
