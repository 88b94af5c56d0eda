"""What a serving process does not load; in a process of its own, as it changes what is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

_AFTER = """
import os, sys
from agent.base import lean
before = os.environ.get("SSL_CERT_FILE")
lean.prepare()
"""


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _AFTER + code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("main", ["agent.server.main", "coordinator.server.main"])
def test_a_service_loads_nothing_that_it_does_not_use(main: str) -> None:
    said = _run(
        f"import {main}\n"
        "loaded = {name for name, module in sys.modules.items() if module is not None}\n"
        "print(*sorted({'eventlet', 'alembic', 'os_brick', 'rich', 'pyroute2', 'pyudev', 'oslo_policy'} & loaded))\n"
        "print(*sorted({'netaddr.ip', 'rfc3986.api', 'dateutil.tz.tz', 'stevedore.driver'} & loaded))\n"
        "never = ('oslo_', 'cffi', 'pycparser', 'cryptography', 'numpy')\n"
        "print(*(name for name in sorted(loaded) if name.startswith(never)))\n"
        "print(*sorted({'argparse', 'urllib.request', 'http.client', 'html.entities'} & loaded))\n"
        "print(*sorted({'click', 'numpy', '_sysconfigdata'} & {name.partition('__')[0] for name in loaded}))\n"
        "late = ['zipfile', 'idna', 'attr.validators', 'importlib.metadata']\n"
        "print(*(name for name in late if type(sys.modules[name]).__name__ != '_Later'))"
    )
    assert said.split() == []


def test_what_was_put_off_is_there_when_it_is_used() -> None:
    said = _run(
        "import netaddr, rfc3986, dateutil.parser, stevedore\n"
        "from netaddr.core import INET_ATON\n"
        "from dateutil import tz\n"
        "import stevedore.driver\n"
        "print(netaddr.IPAddress('192.0.2.1'), rfc3986.is_valid_uri('http://example.org'), tz.UTC,\n"
        "      dateutil.parser.parse('2026-01-02').year, stevedore.driver.DriverManager.__name__)\n"
        "import zipfile, io\n"
        "from zipfile import ZipFile\n"
        "print(zipfile.is_zipfile(io.BytesIO()), ZipFile.__name__)\n"
        "import attr, importlib.metadata\n"
        "from importlib.metadata import version\n"
        "print(type(attr.validators.instance_of(int)).__name__, importlib.metadata.distribution('click').name,\n"
        "      version('click') == importlib.metadata.version('click'))"
    )
    assert said.split() == [
        "192.0.2.1", "True", "tzutc()", "2026", "DriverManager", "False", "ZipFile",
        "_InstanceOfValidator", "click", "True",
    ]  # fmt: skip


def test_pydantic_works_without_the_fields_of_its_schemas() -> None:
    said = _run(
        "from typing_extensions import TypedDict\n"
        "from pydantic import BaseModel, TypeAdapter, ValidationError\n"
        "import zoneinfo, sysconfig\n"
        "class One(TypedDict):\n    a: int\n"
        "class Two(BaseModel):\n    one: One\n    zone: zoneinfo.ZoneInfo | None = None\n"
        "print(Two.model_validate_json('{\"one\": {\"a\": 1}}').one, *Two.model_json_schema()['properties'])\n"
        "try:\n    Two(one={'b': 1})\n"
        "except ValidationError as error:\n    print(error.error_count())\n"
        "print(zoneinfo.TZPATH, sysconfig.get_config_var('EXT_SUFFIX').startswith('.'))"
    )
    assert said.splitlines() == ["{'a': 1} one zone", "1", "('/usr/share/zoneinfo',) True"]


def test_the_journal_comes_without_a_command_line() -> None:
    said = _run(
        "import agent.jobs, sqlite_utils, sqlite_utils.utils\n"
        "print('click' in sys.modules, sys.modules.get('numpy'))\n"
        "print(sqlite_utils.Database(memory=True)['t'].insert({'id': 1}, pk='id').last_pk)\n"
        "print(type(sqlite_utils.utils.click.progressbar(length=2)).__name__, 'click' in sys.modules)"
    )
    assert said.split() == ["False", "None", "1", "ProgressBar", "True"]


def test_the_certificates_of_the_system_are_left_to_others() -> None:
    said = _run(
        "import aiohttp.connector, ssl\n"
        "default = aiohttp.connector._SSL_CONTEXT_VERIFIED\n"
        "print(len(default.get_ca_certs()), before == os.environ.get('SSL_CERT_FILE'),\n"
        "      default.verify_mode == ssl.CERT_REQUIRED)"
    )
    assert said.split() == ["0", "True", "True"]


def test_what_the_web_library_seldom_needs_comes_when_it_is_called() -> None:
    said = _run(
        "import html, sys, aiohttp.helpers, aiohttp.web, yarl\n"
        "print(html.escape('<'), 'html.entities' in sys.modules, *map(html.unescape, ['&eacute;', '&hearts;']))\n"
        "os.environ['http_proxy'] = 'http://192.0.2.1'\n"
        "print(aiohttp.helpers.getproxies()['http'], aiohttp.web.ArgumentParser(prog='x').prog)\n"
        "import argparse, urllib.request\n"
        "print(isinstance(argparse.ArgumentParser, type), urllib.request.Request.__name__)\n"
        "print(yarl.URL('http://b\u00fccher.example/').raw_host)"
    )
    assert said.split() == [
        "&lt;", "False", "\u00e9", "\u2665", "http://192.0.2.1", "x", "True", "Request", "xn--bcher-kva.example",
    ]  # fmt: skip


def test_a_connection_by_tls_takes_no_more_than_its_messages_need() -> None:
    said = _run("from asyncio import sslproto\nprint(sslproto.SSLProtocol.max_size)")
    assert said.split() == ["65536"]


def test_what_is_hidden_from_one_library_is_there_for_others() -> None:
    said = _run("import agent.jobs, sqlite_utils.db\nprint(sqlite_utils.db.np)\nimport numpy\nprint(numpy.uint8(3))")
    assert said.split() == ["None", "3"]


def test_what_is_loaded_before_the_fork_is_for_both() -> None:
    said = _run(
        "import coordinator.server.settings, agent.server.settings\n"
        "print(*sorted({'sqlalchemy', 'sqlite_utils', 'numpy', 'cryptography'} & sys.modules.keys()))"
    )
    assert said.split() == []
