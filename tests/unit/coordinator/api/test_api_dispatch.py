"""The framework over a real socket: versions, paths, callers, bodies, answers, errors."""

from __future__ import annotations

import asyncio
import gzip
import re

import pytest

from coordinator.api.dispatch import Crash, Hooks
from tests.unit.coordinator.api.apitoy import P1, P2, THING, served

VERSION = "OpenStack-API-Version"


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as session:
        yield session


async def call(api, method, path, body=None, *, version=None, who="worker", **kwargs):
    headers = {"X-Auth-Token": who, **kwargs.pop("headers", {})}
    if version is not None:
        headers[VERSION] = version
    async with api.request(method, path, json=body, headers=headers, **kwargs) as answer:
        data = await answer.json() if answer.content_type == "application/json" else None
        return answer, data


@pytest.mark.parametrize(
    ("lines", "status", "said"),
    [
        ([], 200, "volume 3.0"),
        (["volume 3.12"], 200, "volume 3.12"),
        (["volume latest"], 200, "volume 3.71"),
        (["compute 2.1"], 200, "volume 3.0"),
        (["compute 2.1, volume 3.5"], 200, "volume 3.5"),
        (["compute 2.1", "volume 3.6"], 200, "volume 3.6"),
        (["Volume 3.7"], 200, "volume 3.7"),
        (["volumev3 3.8"], 200, "volume 3.8"),
        (["block-storage 3.9"], 200, "volume 3.9"),
        (["volume 3.71, brickyard 1.0"], 200, "volume 3.71, brickyard 1.0"),
        (["volume 3.999"], 406, "volume 3.0"),
        (["volume 2.0"], 406, "volume 3.0"),
        (["volume abc"], 400, "volume 3.0"),
        (["volume 3.05"], 400, "volume 3.0"),
        (["brickyard 1.9"], 406, "volume 3.0"),
    ],
)
async def test_version_header(api, lines, status, said):
    from multidict import CIMultiDict

    headers = CIMultiDict([("X-Auth-Token", "worker"), *((VERSION, line) for line in lines)])
    async with api.get("/v3/volumes", headers=headers) as answer:
        text = await answer.text()
        assert answer.status == status, text
        assert answer.headers[VERSION] == said
        assert answer.headers["Vary"] == VERSION
        if lines == ["volume 3.999"]:
            assert "Minimum is 3.0 and maximum is 3.71" in text


async def test_every_answer_has_ids(api):
    answer, _ = await call(api, "GET", "/v3/volumes")
    assert re.fullmatch(r"req-[0-9a-f-]{36}", answer.headers["x-openstack-request-id"])
    assert answer.headers["x-compute-request-id"] == answer.headers["x-openstack-request-id"]
    answer, data = await call(api, "GET", "/v3/nothing")
    assert answer.status == 404
    assert data["itemNotFound"]["code"] == 404
    assert answer.headers["x-openstack-request-id"]
    assert answer.headers[VERSION] == "volume 3.0"


async def test_with_and_without_project_id(api):
    _, plain = await call(api, "GET", "/v3/volumes?limit=2")
    _, long = await call(api, "GET", f"/v3/{P1}/volumes?limit=2")
    assert plain["things"][0] == "/v3"
    assert long["things"][0] == f"/v3/{P1}"
    assert plain["things"][2] == {"limit": "2"}
    answer, data = await call(api, "GET", f"/v3/{P2}/volumes")
    assert answer.status == 400
    assert "Malformed request url" in data["badRequest"]["message"]
    answer, _ = await call(api, "GET", "/v3/not-hex-project/volumes")
    assert answer.status == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_an_id_that_is_empty_is_not_passed_over(api, method):
    """Else a caller whose variable is empty would get, or change, something else than he meant."""
    for path in (f"/v3/{P1}/volumes/", "/v3/volumes/", f"/v3/{P1}/volumes//action", f"/v3/{P1}//volumes"):
        answer, data = await call(api, method, path, {} if method in {"PUT", "POST"} else None)
        assert answer.status == 404
        assert "empty" in data["itemNotFound"]["message"]
    answer, _ = await call(api, "GET", f"/v3//{P1}/volumes")
    assert answer.status == 200


async def test_callers(api):
    answer, data = await call(api, "GET", "/v3/volumes", who="nobody")
    assert answer.status == 401
    assert "unauthorized" in data
    assert re.fullmatch(r'Keystone uri="http://127.0.0.1:\d+/identity"', answer.headers["WWW-Authenticate"])
    answer, data = await call(api, "POST", "/v3/volumes", {"volume": {"size": 1}}, who="looker")
    assert answer.status == 403
    assert "volume:create" in data["forbidden"]["message"]
    answer, _ = await call(api, "GET", f"/v3/volumes/{THING}", who="looker")
    assert answer.status == 200
    for who, status in (("worker", 403), ("root", 200)):
        answer, _ = await call(api, "PUT", "/v3/types/x", {}, who=who)
        assert answer.status == status
    answer, _ = await call(api, "GET", "/v3/nothing", who="nobody")
    assert answer.status == 401


async def test_answers_are_cut_to_the_version(api):
    _, old = await call(api, "GET", f"/v3/volumes/{THING}")
    assert old["volume"] == {
        "id": THING, "size": 1, "created_at": "2026-01-02T03:04:05.000000", "inner": [{"a": 1}], "old": "o",
    }  # fmt: skip
    _, new = await call(api, "GET", f"/v3/volumes/{THING}", version="volume 3.21")
    assert new["volume"]["inner"] == [{"a": 1, "b": 2}]
    assert new["volume"]["group_id"] == "g"
    assert "old" not in new["volume"]


async def test_versions_choose_the_route(api):
    assert (await call(api, "GET", "/v3/ways"))[1] == {"way": "old"}
    assert (await call(api, "GET", "/v3/ways", version="volume 3.10"))[1] == {"way": "new"}
    answer, data = await call(api, "GET", "/v3/later", version="volume 3.29")
    assert answer.status == 404
    assert "3.29" in data["itemNotFound"]["message"]


@pytest.mark.parametrize(
    ("volume", "version", "status", "said"),
    [
        ({"size": "1"}, 0, 202, ""),
        ({"size": 1, "foo": 1}, 52, 202, ""),
        ({"size": 1, "foo": 1}, 53, 400, "Additional properties are not allowed ('foo' was unexpected)"),
        ({"size": 1, "group_id": 7}, 12, 202, ""),
        ({"size": 1, "group_id": 7}, 13, 400, "Invalid input for field/attribute group_id. Value: 7. 7 is not of type"),
        ({"size": 0}, 0, 400, "Invalid input for field/attribute size. Value: 0. 0 is less than the minimum of 1"),
        ({"size": -1}, 0, 400, "-1 is less than the minimum of 1"),
        ({"size": 1.5}, 0, 400, "Invalid input for field/attribute size. Value: 1.5. 1.5 is not of type"),
        ({"size": "abc"}, 0, 400, "attribute size. Value: abc."),
        ({"size": True}, 0, 400, "Value: True. True is not of type"),
        ({}, 0, 400, "'size' is a required property"),
        (None, 0, 400, "None is not of type 'object'"),
        ([], 0, 400, "is not of type 'object'"),
        ({"size": 1, "name": "n" * 256}, 0, 400, "Invalid input for field/attribute name. Value: nnn"),
        ({"size": 1, "name": "n" * 256}, 0, 400, "is too long"),
        ({"size": 1, "source": "x"}, 0, 400, "'x' is not a 'uuid'"),
        ({"size": 1, "source": THING.replace("-", "").upper()}, 0, 202, ""),
        ({"size": 1, "bootable": "ON"}, 0, 202, ""),
        ({"size": 1, "bootable": "maybe"}, 0, 400, "'maybe' is not a boolean"),
        ({"size": 1, "metadata": {"": "v"}}, 0, 400, "is too short"),
        ({"size": 1, "metadata": {"k": 1}}, 0, 400, "attribute k. Value: 1. 1 is not of type 'string'"),
    ],
)
async def test_bodies(api, volume, version, status, said):
    answer, data = await call(api, "POST", "/v3/volumes", {"volume": volume}, version=f"volume 3.{version}")
    assert answer.status == status, data
    if status == 400:
        assert said in data["badRequest"]["message"]


async def test_a_secret_is_not_echoed(api):
    for body in (
        {"size": 1, "secret": "hunter2" * 50},
        {"size": 1, "foo": 1, "secret": "hunter2"},
        {"secret": "hunter2"},
    ):
        _, data = await call(api, "POST", "/v3/volumes", {"volume": body}, version="volume 3.60")
        assert "hunter2" not in str(data)


@pytest.mark.parametrize("raw", [b"{", b"[]", b'"x"', b"NaN", b'{"volume": NaN}', b"\xff", b"[" * 5000])
async def test_malformed_bodies(api, raw):
    async with api.post("/v3/volumes", data=raw, headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 400
        assert "badRequest" in await answer.json()


async def test_odd_bodies(api):
    answer, data = await call(api, "POST", "/v3/volumes", {"wrong": {}})
    assert "'volume' is a required property" in data["badRequest"]["message"]
    answer, data = await call(api, "POST", "/v3/volumes")
    assert answer.status == 400
    async with api.post("/v3/volumes", data=b"x" * 200_000, headers={"Content-Type": "application/json"}) as big:
        assert big.status == 413
        assert big.headers["Retry-After"] == "0"

    async def pieces():
        for _ in range(40):
            yield b"x" * 8192

    async with api.post("/v3/volumes", data=pieces(), headers={"Content-Type": "application/json"}) as big:
        assert big.status == 413
    async with api.post("/v3/volumes", data=b"<x/>", headers={"Content-Type": "application/xml"}) as other:
        assert other.status == 415


async def test_packed_bodies_are_bounded_by_what_they_unpack_to(api):
    headers = {"X-Auth-Token": "worker", "Content-Type": "application/json", "Content-Encoding": "gzip"}
    packed = gzip.compress(b'{"volume": {"size": 1}}')
    async with api.post("/v3/volumes", data=packed, headers=headers) as answer:
        assert answer.status == 202
    # Damaged behind the part that is read: who unpacks all of it meets that.
    packed = gzip.compress(bytes(50_000_000))[:-8] + b"damaged!"
    async with api.post("/v3/volumes", data=packed, headers=headers) as answer:
        assert (len(packed) < 114_688, answer.status) == (True, 413)


async def test_a_body_that_breaks_off_is_no_defect(tmp_path):
    crashed: asyncio.Queue[Crash] = asyncio.Queue()
    async with served(tmp_path, hooks=Hooks(crashed=crashed.put)) as api:
        headers = {"X-Auth-Token": "worker", "Content-Type": "application/json", "Content-Encoding": "gzip"}
        damaged = gzip.compress(b"{}")[:-8] + b"damaged!"
        async with api.post("/v3/volumes", data=damaged, headers=headers) as answer:
            assert (answer.status, "breaks off" in (await answer.json())["badRequest"]["message"]) == (400, True)
        assert crashed.empty()


async def test_actions(api):
    path = f"/v3/volumes/{THING}/action"
    answer, data = await call(api, "POST", path, {"os-extend": {"new_size": "3"}})
    assert (answer.status, data, answer.headers["X-Thing"]) == (202, {"new_size": 3}, THING)
    answer, data = await call(api, "POST", path, {"os-extend": {}})
    assert "'new_size' is a required property" in data["badRequest"]["message"]
    answer, data = await call(api, "POST", path, {"os-what": {}})
    assert answer.status == 400
    assert "no such action: os-what" in data["badRequest"]["message"]
    answer, data = await call(api, "POST", path, {"os-retype": {}})
    assert answer.status == 400
    assert "not served" in data["badRequest"]["message"]
    answer, _ = await call(api, "POST", path, {"os-later": None}, version="volume 3.41")
    assert answer.status == 404
    answer, _ = await call(api, "POST", path, {"os-later": None}, version="volume 3.42")
    assert answer.status == 202
    answer, _ = await call(api, "POST", path)
    assert answer.status == 400


async def test_refusals_by_name(api):
    answer, data = await call(api, "GET", f"/v3/{P1}/backups/detail")
    assert answer.status == 404
    assert "GET /v3/backups/detail" in data["itemNotFound"]["message"]
    answer, data = await call(api, "PATCH", "/v3/volumes")
    assert answer.status == 405
    assert "GET, POST" in data["badMethod"]["message"]
    for path in ("/v1/x/volumes", "/v2/x/volumes", "/favicon.ico"):
        answer, _ = await call(api, "GET", path)
        assert answer.status == 404


async def test_errors(api):
    answer, data = await call(api, "GET", "/v3/volumes/none")
    assert (answer.status, data) == (404, {"itemNotFound": {"code": 404, "message": "Thing none could not be found."}})
    answer, data = await call(api, "GET", "/v3/volumes/locked")
    assert data == {"conflictingRequest": {"code": 409, "message": "Invalid thing: it is locked."}}
    answer, data = await call(api, "GET", "/v3/volumes/busy")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "3")
    assert "tried again" in data["serviceUnavailable"]["message"]


async def test_an_unexpected_exception_says_nothing_and_is_recorded(tmp_path):
    seen = []

    async def crashed(crash):
        seen.append((crash.label, type(crash.error)))
        raise ValueError("the hook fails too")

    async with served(tmp_path, hooks=Hooks(crashed=crashed)) as api:
        answer, data = await call(api, "GET", "/v3/volumes/boom")
        assert answer.status == 500
        assert "secret" not in str(data)
        assert data["computeFault"]["code"] == 500
    assert seen == [("GET /volumes/{thing_id}", RuntimeError)]


@pytest.mark.parametrize(("mode", "status"), [("error", 500), ("warn", 200), ("ignore", 200)])
async def test_response_validation(tmp_path, mode, status):
    async with served(tmp_path, response_validation=mode) as api:
        answer, _ = await call(api, "GET", "/v3/volumes/wrong")
        assert answer.status == status


async def test_discovery_and_health(api):
    async with api.get("/", headers={}) as answer:
        assert answer.status == 300
        (version,) = (await answer.json())["versions"]
        assert (version["id"], version["min_version"], version["version"]) == ("v3.0", "3.0", "3.71")
        assert version["links"][0]["href"].endswith("/v3/")
    for path in ("/v3/", "/v3", "/healthz", "/healthz/live"):
        answer, _ = await call(api, "GET", path, who="nobody")
        assert answer.status == 200
    answer, _ = await call(api, "HEAD", "/healthz")
    assert answer.status == 200


async def test_openapi_is_valid(api):
    from openapi_spec_validator import validate

    _, document = await call(api, "GET", "/openapi.json", who="nobody")
    validate(document)
    schema = document["components"]["schemas"]["CreateThing"]
    assert schema["properties"]["group_id"]["x-openstack-min-ver"] == "3.13"
    assert "/v3/volumes/{thing_id}/action" in document["paths"]
    _, document = await call(api, "GET", "/openapi.json?version=3.12", who="nobody")
    assert "group_id" not in document["components"]["schemas"]["CreateThing"]["properties"]
    answer, _ = await call(api, "GET", "/openapi.json?version=3.72", who="nobody")
    assert answer.status == 406
