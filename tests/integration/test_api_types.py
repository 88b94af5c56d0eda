"""Volume types, quotas, services and the like over HTTP, as two projects and three roles."""

from __future__ import annotations

import pytest
from aiohttp import ClientSession, encode_basic_auth
from sqlalchemy import insert

from coordinator.state import identity as state
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import hosts, pools
from tests.integration.apiserver import PASSWORD, running

P1, P2 = "a1" * 16, "b2" * 16
PEOPLE = (("alice", P1, "member"), ("rob", P1, "reader"), ("bea", P2, "member"))


def people(db, password_hash):
    """Two projects, three roles."""

    def write(conn):
        for project, name in ((P1, "one"), (P2, "two")):
            state.add(conn, "project", id=project, name=name, domain_id="default", enabled=True)
        for name, project, role in PEOPLE:
            user = state.add(conn, "user", name=name, domain_id="default", default_project_id=project,
                             password_hash=password_hash, enabled=True)  # fmt: skip
            state.grant(conn, user, "project", project, state.by_name(conn, "role", role).id)

    db.write_now(write)


def fleet(db):
    """Two hosts, one with two back ends, one not reachable."""

    def write(conn):
        for host, up in (("host-a", True), ("host-b", False)):
            conn.execute(insert(hosts).values(id=host, reachable=up, last_seen=utcnow()))
        for host, backend in (("host-a", "file"), ("host-a", "fast"), ("host-b", "file")):
            conn.execute(insert(pools).values(
                id=f"{host}@{backend}#p", host_id=host, backend=backend, name="p", driver="file", total_bytes=10 << 30,
                free_bytes=5 << 30, reported={"protocols": ["local"], "allocated_bytes": 1 << 30}))  # fmt: skip

    db.write_now(write)


class Api:
    """Calls as a person; `await api("alice", "GET", "/v3/types")` gives status and body."""

    def __init__(self, http):
        self.http, self.tokens, self.headers = http, {}, {}

    async def __call__(self, who, method, path, body=None, version=71):
        if who not in self.tokens:
            user = {"name": who, "domain": {"id": "default"}, "password": PASSWORD}
            identity = {"methods": ["password"], "password": {"user": user}}
            async with self.http.post("/identity/v3/auth/tokens", json={"auth": {"identity": identity}}) as answer:
                self.tokens[who] = answer.headers["X-Subject-Token"]
        headers = {"X-Auth-Token": self.tokens[who], "OpenStack-API-Version": f"volume 3.{version}"}
        async with self.http.request(method, path, json=body, headers=headers) as answer:
            self.headers = answer.headers
            return answer.status, await answer.json() if answer.content_type == "application/json" else None


@pytest.fixture
async def api(tmp_path):
    with running(tmp_path) as server:
        people(server.db, await server.identity.hashed(PASSWORD))
        fleet(server.db)
        async with ClientSession(server.url) as http:
            yield Api(http)


async def make(api, name, **more):
    status, body = await api("admin", "POST", "/v3/types", {"volume_type": {"name": name, **more}})
    assert status == 200, body
    return body["volume_type"]["id"]


async def test_types_by_role(api):
    type_id = await make(api, "gold", description="fast", extra_specs={"secret": "x", "multiattach": "<is> True"})
    for who in ("alice", "rob", "bea"):
        status, body = await api(who, "GET", f"/v3/types/{type_id}")
        assert status == 200
        assert body["volume_type"]["extra_specs"] == {"multiattach": "<is> True"}
        assert "qos_specs_id" not in body["volume_type"]
        assert (await api(who, "POST", "/v3/types", {"volume_type": {"name": "x"}}))[0] == 403
        assert (await api(who, "PUT", f"/v3/types/{type_id}", {"volume_type": {"name": "x"}}))[0] == 403
        assert (await api(who, "DELETE", f"/v3/types/{type_id}"))[0] == 403
    _, body = await api("admin", "GET", f"/v3/types/{type_id}")
    assert body["volume_type"]["extra_specs"]["secret"] == "x"
    assert (await api("admin", "POST", "/v3/types", {"volume_type": {"name": "gold"}}))[0] == 409
    assert (await api("admin", "PUT", f"/v3/types/{type_id}", {"volume_type": {}}))[0] == 400
    _, body = await api("admin", "PUT", f"/v3/types/{type_id}", {"volume_type": {"name": "platinum"}})
    assert body["volume_type"]["name"] == "platinum"
    assert (await api("admin", "DELETE", f"/v3/types/{type_id}"))[0] == 202
    assert (await api("admin", "GET", f"/v3/types/{type_id}"))[0] == 404


async def test_private_types(api):
    type_id = await make(api, "private", **{"os-volume-type-access:is_public": False})
    one, access = f"/v3/types/{type_id}", f"/v3/types/{type_id}/os-volume-type-access"
    assert (await api("alice", "GET", one))[0] == 404
    assert (await api("alice", "GET", "/v3/types"))[1]["volume_types"] == []
    grant, revoke = {"addProjectAccess": {"project": P1}}, {"removeProjectAccess": {"project": P1}}
    assert (await api("admin", "POST", f"{one}/action", grant))[0] == 202
    assert (await api("admin", "POST", f"{one}/action", grant))[0] == 409
    assert (await api("alice", "GET", one))[0] == 200
    assert len((await api("alice", "GET", "/v3/types"))[1]["volume_types"]) == 1
    assert (await api("bea", "GET", one))[0] == 404
    assert (await api("admin", "GET", access))[1] == {
        "volume_type_access": [{"volume_type_id": type_id, "project_id": P1}]
    }
    assert (await api("admin", "POST", f"{one}/action", revoke))[0] == 202
    assert (await api("admin", "POST", f"{one}/action", revoke))[0] == 404
    assert (await api("admin", "POST", f"{one}/action", {"addProjectAccess": {}}))[0] == 400
    public = await make(api, "public")
    assert (await api("admin", "GET", f"/v3/types/{public}/os-volume-type-access"))[0] == 404
    assert len((await api("admin", "GET", "/v3/types?is_public=false"))[1]["volume_types"]) == 1
    assert len((await api("admin", "GET", "/v3/types?is_public=None"))[1]["volume_types"]) == 2


async def test_pages_of_types(api):
    ids = [await make(api, f"t{n:02}") for n in range(7)]
    await make(api, "hidden", **{"os-volume-type-access:is_public": False})
    path, seen = f"/v3/{P1}/types?limit=3&sort=name:asc", []
    while path:
        status, body = await api("alice", "GET", path)
        assert status == 200
        seen += [item["id"] for item in body["volume_types"]]
        links = body.get("volume_type_links", [])
        path = links[0]["href"].partition("/v3/")[2] and "/v3/" + links[0]["href"].partition("/v3/")[2] if links else ""
        assert links == body.get("volume_types_links", []), "what clients look for"
        assert not links or f"/v3/{P1}/types?" in links[0]["href"]
    assert seen == ids
    for bad, said in (
        ("limit=abc", "limit param must be an integer"),
        ("limit=-1", "limit param must be positive"),
        ("sort=size", "Invalid sort key"),
        ("sort=name:up", "must be 'desc' or 'asc'"),
        ("sort=name&sort_key=id", "cannot be used with"),
        ("sort_key=id&sort_dir=asc,desc", "Sort direction array size"),
    ):
        status, body = await api("alice", "GET", f"/v3/types?{bad}")
        assert status == 400
        assert said in body["badRequest"]["message"]
    assert (await api("alice", "GET", f"/v3/types?marker={P1}"))[0] == 404
    _, body = await api("alice", "GET", "/v3/types?limit=0")
    assert body == {"volume_types": []}


async def test_extra_specs(api):
    type_id = await make(api, "gold", extra_specs={"RESKEY:availability_zones": "az1, az10"})
    path = f"/v3/types/{type_id}/extra_specs"
    assert (await api("admin", "POST", path, {"extra_specs": {"a": "1"}}))[1] == {"extra_specs": {"a": "1"}}
    assert (await api("admin", "PUT", f"{path}/a", {"a": "2"}))[1] == {"a": "2"}
    assert (await api("admin", "PUT", f"{path}/a", {"b": "2"}))[0] == 400
    assert (await api("admin", "PUT", f"{path}/a", {"a": 2}))[0] == 400
    assert (await api("admin", "POST", path, {"extra_specs": {"bad/key": "1"}}))[0] == 400
    assert (await api("admin", "POST", path, {"extra_specs": {}}))[0] == 400
    assert (await api("admin", "GET", f"{path}/a"))[1] == {"a": "2"}
    assert (await api("alice", "GET", f"{path}/a"))[0] == 404
    assert (await api("admin", "DELETE", f"{path}/a"))[0] == 202
    assert (await api("admin", "DELETE", f"{path}/a"))[0] == 404
    for zone, count in (("az1", 1), ("az10", 1), ("az", 0), ("0", 0)):
        query = f"/v3/types?extra_specs={{'RESKEY:availability_zones':'{zone}'}}"
        assert len((await api("alice", "GET", query, version=52))[1]["volume_types"]) == count
        assert len((await api("alice", "GET", query, version=30))[1]["volume_types"]) == 1
    assert (await api("alice", "GET", "/v3/types?extra_specs=__import__('os')", version=52))[0] == 400


async def test_encryption(api):
    type_id = await make(api, "luks")
    path = f"/v3/types/{type_id}/encryption"
    assert await api("admin", "GET", path) == (200, {})
    assert (await api("alice", "GET", path))[0] == 403
    for provider in ("LuksEncryptor", "os_brick.encryptors.luks.LuksEncryptor"):  # names that older deployments have
        assert (await api("admin", "POST", path, {"encryption": {"provider": provider}}))[0] == 200
        assert (await api("admin", "DELETE", f"{path}/provider"))[0] == 202
    for provider in ("rot13", "plain", "nova.volume.encryptors.cryptsetup.CryptsetupEncryptor"):
        status, body = await api("admin", "POST", path, {"encryption": {"provider": provider}})
        assert (status, "'luks2'" in body["badRequest"]["message"]) == (400, True), body
    for cipher, bits, why in (
        ("rot13", 128, "is not known"), ("aes-xts-plain64", 128, "it has 256, 384, 512"),
        ("aes-ecb", 256, "parts of a disk are equal"), ("aes-cbc-plain64", 192, "qemu can not open"),
        ("cast5-cbc-plain64", 256, "it has 128"),
    ):  # fmt: skip
        wrong = {"provider": "luks", "cipher": cipher, "key_size": bits}
        status, body = await api("admin", "POST", path, {"encryption": wrong})
        assert (status, why in body["badRequest"]["message"]) == (400, True), body
    assert await api("admin", "GET", path) == (200, {})
    wanted = {"provider": "luks", "cipher": "aes-xts-plain64", "key_size": "256", "control_location": "front-end"}
    status, body = await api("admin", "POST", path, {"encryption": wanted})
    assert (status, body["encryption"]["key_size"]) == (200, 256)
    shown = (await api("admin", "GET", path))[1]
    assert shown.keys() - body["encryption"].keys() == {"created_at", "updated_at", "deleted", "deleted_at"}
    one = f"{path}/{body['encryption']['encryption_id']}"
    assert (await api("admin", "POST", path, {"encryption": wanted}))[0] == 400
    assert (await api("admin", "GET", f"{path}/cipher"))[1] == {"cipher": "aes-xts-plain64"}
    assert (await api("admin", "PUT", one, {"encryption": {"key_size": 512}}))[1] == {"encryption": {"key_size": 512}}
    assert (await api("admin", "PUT", one, {"encryption": {}}))[0] == 400
    status, body = await api("admin", "PUT", one, {"encryption": {"cipher": "aes-cbc-plain64"}})
    assert (status, "has no keys of 512 bits" in body["badRequest"]["message"]) == (400, True)
    other = {"cipher": "serpent-cbc-essiv:sha256", "key_size": None}
    assert (await api("admin", "PUT", one, {"encryption": other}))[0] == 200
    assert (await api("admin", "PUT", one, {"encryption": {"cipher": None, "key_size": 512}}))[0] == 200
    assert (await api("admin", "GET", path))[1]["key_size"] == 512
    assert (await api("admin", "DELETE", f"{path}/other"))[0] == 404
    assert (await api("admin", "DELETE", one))[0] == 202
    assert await api("admin", "GET", path) == (200, {})


async def test_quotas(api):
    assert (await api("rob", "GET", "/v3/limits"))[1]["limits"]["absolute"]["maxTotalVolumes"] == 10
    _, body = await api("alice", "GET", f"/v3/os-quota-sets/{P1}?usage=true")
    assert body["quota_set"]["volumes"] == {"limit": 10, "in_use": 0, "reserved": 0, "allocated": 0}
    assert (await api("alice", "GET", f"/v3/os-quota-sets/{P2}"))[0] == 403
    change = {"quota_set": {"volumes": "5", "tenant_id": P1}}
    assert (await api("alice", "PUT", f"/v3/os-quota-sets/{P1}", change))[0] == 403
    assert (await api("admin", "PUT", f"/v3/os-quota-sets/{P1}", change))[1]["quota_set"]["volumes"] == 5
    assert (await api("admin", "PUT", f"/v3/os-quota-sets/{'9' * 32}", change))[0] == 404
    for bad in ({"volumes": -2}, {"nothing": 1}, {"volumes": "x"}, {"volumes": 1.5}):
        assert (await api("admin", "PUT", f"/v3/os-quota-sets/{P1}", {"quota_set": bad}))[0] == 400
    assert (await api("alice", "GET", f"/v3/os-quota-sets/{P1}"))[1]["quota_set"]["volumes"] == 5
    assert (await api("admin", "DELETE", f"/v3/os-quota-sets/{P1}"))[0] == 200
    cls = "/v3/os-quota-class-sets/default"
    assert (await api("admin", "PUT", cls, {"quota_class_set": {"volumes": 7}}))[0] == 200
    assert (await api("admin", "GET", cls))[1]["quota_class_set"]["volumes"] == 7
    assert (await api("alice", "GET", f"/v3/os-quota-sets/{P1}/defaults"))[1]["quota_set"]["volumes"] == 7


async def test_services_and_pools(api):
    assert (await api("alice", "GET", "/v3/os-services"))[0] == 403
    _, body = await api("admin", "GET", "/v3/os-services?binary=cinder-volume")
    assert [(item["host"], item["state"]) for item in body["services"]] == [
        ("host-a@fast", "up"), ("host-a@file", "up"), ("host-b@file", "down"),
    ]  # fmt: skip
    for host in ("host-a@fast", "host-b@file"):
        off = {"host": host, "binary": "cinder-volume", "disabled_reason": "broken fan"}
        status, body = await api("admin", "PUT", "/v3/os-services/disable-log-reason", off)
        assert (status, body["status"]) == (200, "disabled")
    _, body = await api("admin", "GET", "/v3/os-services?host=host-a")
    assert [item["status"] for item in body["services"]] == ["disabled", "enabled"]
    _, body = await api("admin", "GET", "/v3/os-services?host=host-b@file")
    assert body["services"][0]["disabled_reason"] == "broken fan"
    assert (await api("admin", "PUT", "/v3/os-services/enable", {"host": "host-a@fast"}))[0] == 200
    assert (await api("admin", "PUT", "/v3/os-services/enable", {"host": "nowhere"}))[0] == 404
    assert (await api("admin", "PUT", "/v3/os-services/enable", {"host": "h" * 256}))[0] == 400
    assert (await api("admin", "PUT", "/v3/os-services/dance", {"host": "host-a"}))[0] == 404
    _, body = await api("admin", "GET", "/v3/scheduler-stats/get_pools?detail=true")
    assert body["pools"][0]["name"] == "host-a@fast#p"
    assert body["pools"][0]["capabilities"]["total_capacity_gb"] == 10.0
    assert (await api("alice", "GET", "/v3/scheduler-stats/get_pools"))[0] == 403
    _, body = await api("alice", "GET", "/v3/os-availability-zone")
    assert body["availabilityZoneInfo"] == [{"zoneName": "nova", "zoneState": {"available": True}}]


async def test_pools_are_filtered_by_name_and_by_what_a_type_asks_for(api):
    async def names(query, version=71):
        status, body = await api("admin", "GET", f"/v3/scheduler-stats/get_pools{query}", version=version)
        return [pool["name"] for pool in body["pools"]] if status == 200 else status

    both = ["host-a@fast#p", "host-a@file#p", "host-b@file#p"]
    type_id = await make(api, "fast", extra_specs={"volume_backend_name": "fast", "qos:any": "1"})
    assert await names("") == both
    assert await names("?name=host-a@file%23p") == ["host-a@file#p"]
    assert await names("?name=host-a@file%23p", 27) == both
    for query in ("?volume_type=fast&detail=true", f"?volume_type={type_id}", "?volume-type=fast"):
        assert await names(query) == ["host-a@fast#p"]
    assert await names("?volume_type=fast", 34) == both
    assert await names("?volume_type=nosuch") == 404
    assert await names("?foo=1") == 400
    assert await names("?foo=1", 30) == both


async def test_small_lists(api):
    assert (await api("alice", "GET", "/v3/extensions"))[0] == 200
    assert (await api("alice", "GET", "/v3/extensions/os-services"))[1]["extension"]["alias"] == "os-services"
    assert (await api("alice", "GET", "/v3/extensions/none"))[0] == 404
    assert (await api("alice", "GET", "/v3/resource_filters", version=32))[0] == 404
    _, body = await api("alice", "GET", "/v3/resource_filters?resource=volume")
    assert body["resource_filters"][0]["resource"] == "volume"
    assert (await api("alice", "GET", "/v3/messages", version=2))[0] == 404
    assert await api("alice", "GET", "/v3/messages") == (200, {"messages": []})
    assert (await api("alice", "GET", "/v3/messages?foo=1", version=31))[0] == 400
    assert (await api("alice", "GET", "/v3/messages?foo=1", version=30))[0] == 200
    assert (await api("alice", "GET", f"/v3/messages/{P1}"))[0] == 404
    assert (await api("alice", "GET", "/v3/types/default"))[0] == 404


async def test_metrics(api):
    await api("alice", "GET", "/v3/types")
    assert (await api("alice", "GET", "/metrics"))[0] == 403
    assert (await api("admin", "GET", "/metrics"))[0] == 200
    assert api.headers["Content-Type"].startswith("text/plain")
    credentials = {"Authorization": encode_basic_auth("admin", PASSWORD)}
    async with api.http.get("/metrics", headers=credentials) as answer:
        text = await answer.text()
    assert 'brickyard_hosts{state="unreachable"} 1.0' in text
    assert 'brickyard_pool_bytes{pool="host-a@fast#p",size="free"} 5.36870912e+09' in text
    assert 'brickyard_api_seconds_count{route="GET /types",status="2xx"}' in text
