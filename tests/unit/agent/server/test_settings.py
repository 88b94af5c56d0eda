from __future__ import annotations

from pathlib import Path

import pytest

from agent.base.config import ConfigError, load
from agent.server.settings import AgentSettings


def test_all_defaults_are_usable() -> None:
    settings = load(AgentSettings, None)
    assert settings.state_dir == Path("/var/lib/brickyard")
    assert settings.journal_file == Path("/var/lib/brickyard/journal.db")
    assert settings.spool_dir == Path("/var/lib/brickyard/spool")
    assert settings.images_dir is None
    assert settings.agent.host
    assert settings.backends == {}


def test_a_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('[agent]\nhost = "host-a"\n[backends.fast]\npath = "/srv/fast"\n[images]\nstore = "/srv/images"\n')
    settings = load(AgentSettings, path, [f"agent.state_dir={tmp_path}", "backends.slow.path=/srv/slow"])
    assert sorted(settings.backends) == ["fast", "slow"]
    assert settings.images_dir == Path("/srv/images")
    assert settings.identity_dir == tmp_path / "identity"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("agent.host=bad name", "plain name"),
        ("agent.listen=nowhere", "does not appear to be an IPv4 or IPv6 address"),
        ("agent.port=0", "agent.port"),
        ("backends.a/b.path=/srv/x", "plain name"),
        ("backends.two.path=/srv/one/below", "share the folder"),
        ("backends.two.driver=ceph", "driver"),
        ("jobs.heavy=0", "jobs.heavy"),
        ("nonsense.key=1", "nonsense"),
    ],
)
def test_what_is_wrong_is_told(override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(AgentSettings, None, ["backends.one.path=/srv/one", override])


def test_a_back_end_has_several_pools_and_one_of_its_name_keeps_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        '[backends.fast]\nreserved_percent = 5\ncapabilities = { media = "ssd", rack = 1 }\n'
        '[backends.fast.pools.fast]\npath = "/srv/a"\n'
        '[backends.fast.pools.more]\npath = "/srv/b"\ncapabilities = { rack = 2 }\nreserved_percent = 7\n'
        '[backends.vg]\ndriver = "lvm"\ngroup = "g"\n[backends.vg.pools.one]\npool = "t1"\n'
        '[backends.vg.pools.two]\npool = "t2"\n'
    )
    found = load(AgentSettings, path).backends
    assert sorted(found) == ["fast", "fast#more", "vg#one", "vg#two"]
    assert [(found[name].reserved_percent, found[name].capabilities) for name in ("fast", "fast#more")] == [
        (5, {"media": "ssd", "rack": 1}), (7, {"media": "ssd", "rack": 2})
    ]  # fmt: skip


def test_pools_of_two_back_ends_may_have_one_name(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('[backends.a.pools.p]\npath = "/srv/a"\n[backends.b.pools.p]\npath = "/srv/b"\n')
    assert sorted(load(AgentSettings, path).backends) == ["a#p", "b#p"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[backends.b.pools.p]\npath = "/srv/p"\n[backends.b.pools.p]\npath = "/srv/q"', "p"),
        ('[backends.b.pools.p]\npath = "/srv/p"\n[backends.b.pools.q]\npath = "/srv/p"', "share the folder"),
        ('[backends.b]\npath = "/srv/p"\n[backends.b.pools.p]\n[backends.b.pools.q]\n', "share the folder"),
        ("[backends.b.pools.p]\nreserved_percent = 3\n", "path"),
        ('[backends.b.pools."a b"]\npath = "/srv/p"\n', "plain name"),
        ('[backends.b.pools.p]\npath = "/srv/p"\nspeed = 1\n', "speed"),
        (
            '[backends.b.pools.p]\npath = "/srv/p"\n[backends.b.pools.p.pools.q]\npath = "/srv/q"\n',
            "no pools of its own",
        ),
        ('[backends.b]\npath = "/srv/p"\npools = "two"\n', "pools"),
        ('[backends."b#p"]\npath = "/srv/q"\n[backends.b.pools.p]\npath = "/srv/p"', "b#p is there twice"),
        ('[backends.b.pools.p]\npath = "/srv/p"\n[backends."b#p"]\npath = "/srv/q"', "b#p is there twice"),
    ],
)
def test_what_is_wrong_with_pools_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        load(AgentSettings, path)
