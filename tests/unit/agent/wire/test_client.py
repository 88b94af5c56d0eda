"""The typed client over any transport: what it asks for, and answers that do not fit."""

from __future__ import annotations

from typing import Any

import pytest

from agent.wire.client import AgentClient
from agent.wire.errors import BadAnswer
from agent.wire.jobs import VolumeDelete, WireSecret, request_for

ID = "00000000-0000-0000-0000-000000000001"


class Recorded:
    """A transport that answers with what it is given."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, []  # type: tuple[Any, list[tuple[str, str, Any, Any, float]]]

    async def call(self, method: str, path: str, *, query: Any = None, body: Any = None, timeout: float = 30.0) -> Any:
        self.asked.append((method, path, query, body, timeout))
        return self.answer

    async def close(self) -> None:
        self.answer = None


STATUS = {"key": "op/step/1", "epoch": 3, "kind": "volume.delete", "state": "running", "seq": 4, "later": True}


async def test_job_calls() -> None:
    transport = Recorded(STATUS)
    client = AgentClient(transport)
    request = request_for(
        "op/step/1", 3, VolumeDelete(backend="b", volume_id=ID), {"volume": WireSecret.of("passphrase", b"pw")}
    )
    assert (await client.post_job(request, wait_s=2)).seq == 4
    method, path, query, body, timeout = transport.asked[-1]
    assert (method, path, query) == ("POST", "/v1/jobs", {"wait": 2})
    assert body["secrets"]["volume"]["value_b64"] == "cHc="
    assert timeout > 2
    await client.get_job("op/step/1", wait_s=30, after=4)
    assert transport.asked[-1][:3] == ("GET", "/v1/jobs/op/step/1", {"wait": 30, "after": 4})
    await client.cancel("op/step/1", 3)
    assert transport.asked[-1][:3] == ("DELETE", "/v1/jobs/op/step/1", {"epoch": 3})
    await client.acknowledge(["op/step/1"])
    assert transport.asked[-1][1:4:2] == ("/v1/jobs/acknowledge", {"keys": ["op/step/1"]})


async def test_lists_and_identity() -> None:
    pool = {"backend": "b", "name": "p", "driver": "file", "total_bytes": 1, "free_bytes": 1, "allocated_bytes": 0}
    assert (await AgentClient(Recorded({"pools": [pool]})).pools())[0].name == "p"
    assert await AgentClient(Recorded({"inventory": []})).inventory() == ([], {})
    export = {
        "attachment_id": "11111111-2222-4333-8444-555555555555", "volume_id": "11111111-2222-4333-8444-555555555556",
        "backend": "b", "generation": {"incarnation": 1, "sequence": 1}, "protocol": "iscsi", "initiator": "iqn.x:y",
    }  # fmt: skip
    assert (await AgentClient(Recorded({"exports": [export]})).exports())[0].state == "exported"
    assert await AgentClient(Recorded({"csr": "pem"})).csr() == "pem"


@pytest.mark.parametrize("answer", [None, [], {}, {"pools": 3}, {"pools": {"a": 1}, "clock": 1.0}, "text"])
async def test_an_answer_of_another_form_is_said_to_be_one(answer: Any) -> None:
    client = AgentClient(Recorded(answer))
    with pytest.raises(BadAnswer):
        await client.pools()
    with pytest.raises(BadAnswer):
        await client.host()
    with pytest.raises(BadAnswer):
        await client.report()


async def test_what_can_not_be_read_of_one_pool_is_told_beside_the_others() -> None:
    pool = {"backend": "b", "name": "p", "driver": "file", "total_bytes": 1, "free_bytes": 1, "allocated_bytes": 0}
    rows = [3, {"backend": "../x"}, pool, {**pool, "name": "b", "free_bytes": -1}, {**pool, "name": "q"}]
    told = await AgentClient(Recorded({"clock": 1.0, "pools": [*rows, rows[-1]]})).report()
    assert [one.name for one in told.pools or ()] == ["p"]
    assert told.unread.keys() == {"number 1", "number 2", "b", "b#q"}
    assert told.unread["b"].startswith("free_bytes: ")
    assert "unread" not in told.model_dump()
    assert [one.name for one in await AgentClient(Recorded({"pools": rows})).pools()] == ["p", "q"]
    nothing = await AgentClient(Recorded({"clock": 1.0})).report()
    assert (nothing.pools, nothing.unread) == (None, {})
