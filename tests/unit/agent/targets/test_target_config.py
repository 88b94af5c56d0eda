"""Tables of the targets: what is refused before anything starts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from agent.targets.config import NvmetConfig, TargetsSection
from agent.targets.registry import targets


def test_each_table_switches_its_target_on() -> None:
    assert targets(TargetsSection()) == {}
    section = TargetsSection.model_validate({"nvmet": {"portals": ["10.0.0.1"]}, "lio": {}})
    assert set(targets(section)) == {"iscsi", "nvme-tcp"}
    section = TargetsSection.model_validate({"nvmet_rdma": {"portals": ["10.0.0.1"]}, "iser": {}})
    assert set(targets(section)) == {"iser", "nvme-rdma"}
    (vhost,) = targets(TargetsSection.model_validate({"vhost": {}})).values()
    assert (vhost.protocol, vhost.modules) == ("vhost", ("target_core_mod", "vhost_scsi"))
    with pytest.raises(ValidationError):
        TargetsSection.model_validate({"vhost": {"portals": []}})


@pytest.mark.parametrize(
    "table",
    [
        {"portals": ["storage.example.org"]},
        {"portals": ["10.0.0.1:4420"]},
        {"port": 0},
        {"portals": ["10.0.0.1"], "standby": ["10.0.0.1"]},
        {"standby": ["10.0.0.1"]},
    ],
)
def test_what_can_not_be_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NvmetConfig.model_validate(table)


def test_addresses_are_kept_in_their_plainest_form() -> None:
    assert NvmetConfig.model_validate({"portals": ["FD00:0::1"]}).portals == ("fd00::1",)
