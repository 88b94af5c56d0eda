"""What a coordinator looks at before it serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.api.settings import ApiSettings
from coordinator.server.settings import CoordinatorSection, CoordinatorSettings
from coordinator.server.start import DefaultTypeMissing, open_state
from coordinator.state import types


def test_a_default_type_that_is_not_there_stops_the_start_and_says_what_to_do(tmp_path: Path) -> None:
    plain = CoordinatorSettings(coordinator=CoordinatorSection(state_dir=tmp_path / "state", listen="127.0.0.1"))
    named = plain.model_copy(update={"api": ApiSettings(default_volume_type="gold")})
    with pytest.raises(DefaultTypeMissing, match="gold") as refused:
        open_state(named)
    assert "brickyard type create gold" in refused.value.remedy
    opened = open_state(plain)
    opened.db.write_now(lambda conn: types.create(conn, "gold", None) and None)
    opened.db.close()
    for _ in range(2):
        opened = open_state(named)
        found = opened.db.read_now(types.listing)
        opened.db.close()
        assert sorted(row.name for row in found) == ["__DEFAULT__", "gold"]
