from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, field_validator

from agent.base.config import ConfigError, SecretUnreadable, Section, load, read_secret
from agent.base.configdoc import keys, markdown
from agent.base.configerrors import key_lines
from agent.base.ids import checked_name


class Log(Section):
    level: Literal["debug", "info"] = Field("info", description="Least level.")


class FileStore(Section):
    driver: Literal["file"] = Field("file", description="Kind of back end.")
    path: Path = Field(description="Folder.")


class LvmStore(Section):
    driver: Literal["lvm"] = Field("lvm", description="Kind of back end.")
    group: str = Field(description="Volume group.")


class Portal(Section):
    port: int = Field(3260, ge=1, le=65535, description="TCP port.")
    chap_password: str = Field("", description="Password.")


class Settings(Section):
    name: str = Field("host", description="Name of this host.")
    log: Log = Field(default_factory=Log, description="Logging.")
    backends: dict[str, Annotated[FileStore | LvmStore, Field(discriminator="driver")]] = Field(
        default_factory=dict, description="Back ends."
    )
    portals: tuple[Portal, ...] = Field((), description="Portals.")


def failing(tmp_path: Path, text: str, *sets: str) -> ConfigError:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(Settings, path, sets)
    return caught.value


def test_defaults_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('name = "a"\n[backends.ssd]\ndriver = "file"\npath = "/srv"\n[[portals]]\nport = 1\n')
    assert load(Settings, None).log.level == "info"
    settings = load(Settings, path, ["log.level=debug", "name=12", "backends.ssd.path=/x=y", "portals.0.port=7"])
    assert settings.name == "12"
    assert settings.log.level == "debug"
    assert settings.backends["ssd"] == FileStore(path=Path("/x=y"))
    assert settings.portals[0].port == 7


def test_last_set_wins_and_lists_are_toml() -> None:
    settings = load(Settings, None, ["name=a", 'name="b c"', "portals=[{port=5}]"])
    assert (settings.name, settings.portals) == ("b c", (Portal(port=5),))


def test_dates_and_several_lines_stay_text() -> None:
    assert load(Settings, None, ["name=2024-01-01"]).name == "2024-01-01"
    assert load(Settings, None, ["name='a'\nlog=1"]).name == "'a'\nlog=1"


def test_unknown_key_names_file_line_and_neighbour(tmp_path: Path) -> None:
    error = failing(tmp_path, "# words\n\n[log]\nlevl = 'info'\n")
    assert str(error) == f"{tmp_path}/agent.toml:4: log.levl: is not a known key."
    assert error.remedy == "Did you mean level?"


def test_missing_key_below_a_chosen_name_names_the_table(tmp_path: Path) -> None:
    error = failing(tmp_path, 'name="x"\n[backends.ssd]\ndriver = "lvm"\n')
    assert error.context["where"].endswith("agent.toml:2")
    assert error.context["key"] == "backends.ssd.group"
    assert error.context["problem"] == "is missing"


def test_all_problems_at_once_in_order_of_the_file(tmp_path: Path) -> None:
    error = failing(tmp_path, '[[portals]]\nport = 1\n[[portals]]\nport = 0\nchap_password = []\n[log]\nlevel = "x"\n')
    assert [problem.key for problem in error.problems] == ["portals.1.port", "portals.1.chap_password", "log.level"]
    assert [problem.where.rpartition(":")[2] for problem in error.problems] == ["4", "5", "7"]
    assert len(str(error).splitlines()) == 3


def test_a_secret_value_is_not_repeated(tmp_path: Path) -> None:
    error = failing(tmp_path, "[[portals]]\nchap_password = true\n")
    assert "True" not in str(error)
    assert "chap_password" in str(error)


def test_an_override_is_named_as_itself(tmp_path: Path) -> None:
    error = failing(tmp_path, 'name = "x"\n', "log.level=loud")
    assert str(error).startswith("--set log.level: log.level: ")
    assert "'loud'" in str(error)


@pytest.mark.parametrize("bad", ["name", "=x", "a..b=1", "name.x=1", "portals.3.port=1"])
def test_a_malformed_override_is_refused(tmp_path: Path, bad: str) -> None:
    text = 'name = "x"\n[[portals]]\n'
    error = failing(tmp_path, text, bad)
    assert error.context["where"] == "--set"
    assert error.remedy


@pytest.mark.parametrize(
    ("text", "line"), [("a = 1\nb = \n", 2), ("[x\n", 1), ("a = 1\na = 2\n", 2), ('name = "x\n', 1), ("a = [1,\n2", 1)]
)
def test_not_toml_names_the_line(tmp_path: Path, text: str, line: int) -> None:
    error = failing(tmp_path, text)
    assert error.context["where"] == f"{tmp_path}/agent.toml:{line}"
    assert "not TOML" in str(error)


def test_a_missing_file_and_one_that_is_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(Settings, tmp_path / "none.toml")
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(Settings, tmp_path / "x")


def test_lines_of_keys_survive_long_values() -> None:
    text = 'a.b = """\n[not]\nx = 1\n"""\nc = [\n 1, # x = 2\n 2]\n[t."x y"]\nk = {q = 1}\n'
    text += "[[l]]\nm=1\n[[l]]\nm=2\n[l.sub]\nn=1\n"
    assert key_lines(text) == {
        ("a", "b"): 1, ("c",): 5, ("t", "x y"): 8, ("t", "x y", "k"): 9, ("l", "0"): 10, ("l", "0", "m"): 11,
        ("l", "1"): 12, ("l", "1", "m"): 13, ("l", "1", "sub"): 14, ("l", "1", "sub", "n"): 15,
    }  # fmt: skip


@given(st.dictionaries(st.text("abc-_", min_size=1, max_size=4), st.text(max_size=20).filter(str.isprintable)))
def test_every_key_of_a_flat_file_has_its_line(values: dict[str, str]) -> None:
    rows = [f"{key} = {_quoted(value)}" for key, value in values.items()]
    text = "\n".join(rows)
    tomllib.loads(text)
    assert key_lines(text) == {(key,): number for number, key in enumerate(values, start=1)}


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def test_our_own_errors_in_a_validator_keep_the_file(tmp_path: Path) -> None:
    class Named(Section):
        name: str = Field("x", description="Name.")

        @field_validator("name")
        @classmethod
        def _plain(cls, value: str) -> str:
            return checked_name(value, "host")

    (tmp_path / "a.toml").write_text('name = "a b"')
    with pytest.raises(ConfigError, match="a value: host 'a b' is not a plain name"):
        load(Named, tmp_path / "a.toml")


def test_every_key_needs_a_description() -> None:
    with pytest.raises(TypeError, match="no description for port"):

        class Bare(Section):
            port: int = 1


def test_reference_holds_every_key() -> None:
    assert [key.dotted for key in keys(Settings)] == [
        "name", "log.level", "backends.NAME.driver", "backends.NAME.path", "backends.NAME.driver",
        "backends.NAME.group", "portals.NAME.port", "portals.NAME.chap_password",
    ]  # fmt: skip
    page = markdown(Settings)
    assert "| `backends.NAME.group` | string | required | Volume group. (when driver = lvm) |" in page
    assert "| `portals.NAME.port` | integer, ≥ 1 and ≤ 65535 | `3260` | TCP port. |" in page
    assert "| `log.level` | `debug` or `info` | `info` | Least level. |" in page


def test_a_table_without_keys_has_a_line_of_its_own() -> None:
    class Switch(Section):
        pass

    class Switches(Section):
        on: Switch | None = Field(None, description="Switched on by being there.")

    assert "| `on` | table without keys | not set | Switched on by being there. |" in markdown(Switches)


def test_secret_file_must_be_private(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    with pytest.raises(SecretUnreadable, match="No such file"):
        read_secret("kek", path)
    path.write_bytes(b"k" * 32)
    path.chmod(0o644)
    with pytest.raises(SecretUnreadable, match="0644") as caught:
        read_secret("kek", path)
    assert caught.value.remedy == f"Run: chmod 0400 {path}"
    path.chmod(0o400)
    assert read_secret("kek", path) == b"k" * 32


@pytest.mark.parametrize("content", [b"", b"x" * 70000])
def test_secret_file_of_odd_size_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "kek"
    path.write_bytes(content)
    path.chmod(0o400)
    with pytest.raises(SecretUnreadable):
        read_secret("kek", path)


def test_secret_from_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SecretUnreadable) as caught:
        read_secret("kek")
    assert "LoadCredential=kek" in caught.value.remedy
    (tmp_path / "kek").write_bytes(b"abc")
    (tmp_path / "kek").chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret("kek") == b"abc"
