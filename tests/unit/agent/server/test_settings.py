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
