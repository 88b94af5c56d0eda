"""LVM's own report (`lvm fullreport --reportformat json --units b`), checked once and turned into what we work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from agent.backends.errors import ReportUnreadable
from agent.host import lvm as names


def _absent(value: Any) -> Any:
    """LVM leaves a field empty where it has nothing to tell, as of a volume that is not active."""
    return None if value in {"", "-1"} else value


Maybe = Annotated[float | None, BeforeValidator(_absent)]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Group(_Row):
    vg_name: str
    vg_uuid: str
    vg_size: int
    vg_free: int
    vg_extent_size: int
    vg_missing_pv_count: int


class Volume(_Row):
    """One logical volume; sizes are bytes, percents are of a pool or of a thin volume that is active."""

    lv_uuid: str
    lv_name: str
    lv_size: int
    lv_attr: str
    lv_tags: str
    lv_layout: str
    pool_lv: str
    origin: str = ""
    data_percent: Maybe = None
    metadata_percent: Maybe = None
    lv_when_full: str = ""
    lv_metadata_size: Annotated[int | None, BeforeValidator(_absent)] = None

    @property
    def zeroes(self) -> bool:
        """Whether a thin pool clears its blocks before it hands them out."""
        return self.lv_attr[7:8] == "z"

    @property
    def exact(self) -> int:
        return names.exact_bytes(self.lv_tags, self.lv_size)


class _Part(_Row):
    vg: tuple[_Group, ...] = ()
    lv: tuple[Volume, ...] = ()


class _Report(_Row):
    report: tuple[_Part, ...]


_reports: TypeAdapter[_Report] = TypeAdapter(_Report)


@dataclass(frozen=True, slots=True)
class GroupState:
    """A volume group as one report told it. `volumes` are all of them, ours or not."""

    name: str
    uuid: str
    size: int
    free: int
    extent: int
    missing_devices: int
    volumes: tuple[Volume, ...]

    def volume(self, name: str) -> Volume | None:
        return next((volume for volume in self.volumes if volume.lv_name == name), None)


def parse(text: str, group: str) -> GroupState:
    """The state of that group; ReportUnreadable when the report tells nothing of it."""
    try:
        parts = _reports.validate_json(text).report
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ReportUnreadable(group=group, reason=f"{where}: {first['msg']}") from None
    for part in parts:
        for found in part.vg:
            if found.vg_name == group:
                return GroupState(
                    group, found.vg_uuid, found.vg_size, found.vg_free, found.vg_extent_size,
                    found.vg_missing_pv_count, part.lv,
                )  # fmt: skip
    raise ReportUnreadable(group=group, reason="it does not name the group")
