"""Started as root, the agent forks its daemons and can never be root again; started as anyone, it says what it can."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agent.base.ids import is_id
from agent.host import sysfs
from tests.integration.agent.privsep_child import ROOT, bound, run, traversable

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="starting as root needs root"),
]


def test_root_forks_drops_and_attaches() -> None:
    if not Path("/dev/loop-control").exists():
        pytest.skip("no loop devices here")
    code = """
given = dropped()
from agent.connectors import local
async def main():
    path, attachment = volume(data=b"hello"), str(uuid.uuid4())
    device = await local.attach(path, attachment, 1 << 20)
    detached = await local.detach(attachment)
    return device.backing_file == str(path), detached
file, detached = asyncio.run(main())
regained = []
for attempt in (lambda: os.setuid(0), lambda: os.seteuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
    try:
        attempt()
        regained.append(True)
    except PermissionError:
        pass
status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
told(mode=given.mode, file=file, detached=detached, regained=regained, caps=status["CapPrm"], ids=os.getresuid(),
     groups=os.getgroups(), nnp=status["NoNewPrivs"], home=os.environ["HOME"])
"""
    with traversable() as base:
        found = run(code, base)
        assert bound(base) == {}
        assert found == {
            "mode": "forked", "file": True, "detached": True, "regained": [], "caps": "0000000000000000",
            "ids": [65534] * 3, "groups": [], "nnp": "1", "home": str(base),
        }  # fmt: skip


def test_daemons_keep_few_capabilities_and_no_eventlet() -> None:
    code = """
import glob
start.start(["block", "crypt", "net"], roots=[base / "root"])
channel("block"), channel("crypt"), channel("net")
kids = [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
caps = {}
for pid in kids:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caps[pid] = sorted(line.split()[1].lstrip("0") for line in lines if line.startswith(("CapPrm", "CapEff")))
maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in [*kids, os.getpid()])
told(caps=sorted(caps.values()), eventlet="eventlet" in maps or "greenlet" in maps,
     here=sys.modules["eventlet"] is not None)
"""
    with traversable() as base:
        found = run(code, base)
    # DAC_OVERRIDE alone for block; SYS_ADMIN and IPC_LOCK for the tools of crypt; SYS_ADMIN, SYS_PTRACE and
    # DAC_READ_SEARCH for net
    caps = [["2", "2"], ["204000", "204000"], ["280004", "280004"]]
    assert found == {"caps": caps, "eventlet": False, "here": False}


def test_an_unreachable_state_directory_stops_the_start() -> None:
    code = """
base.chmod(0o700)
os.chown(base, 0, 0)
try:
    dropped()
except AccountInvalid as error:
    told(code=error.code, text=str(error))
"""
    with traversable() as base:
        assert run(code, base) == {
            "code": "privilege.account",
            "text": f"The agent can not run as user nobody: it can not read and write {base}.",
        }


def test_a_limits_file_of_another_stops_the_start() -> None:
    code = """
path = base / "limits.toml"
path.write_text("")
os.chown(path, 65534, 65534)
try:
    start.start(["block"], limits_file=path)
except LimitsInvalid as error:
    told(code=error.code)
"""
    with traversable() as base:
        assert run(code, base) == {"code": "privilege.limits-invalid"}


def test_without_a_limits_file_nothing_is_allowed() -> None:
    code = """
start.start(["block"], limits_file=base / "none.toml")
from agent.privsep import block, client
path = volume()
try:
    client.invoke(block.loop_attach, str(path), False, str(uuid.uuid4()))
except VerbRefused as error:
    told(text=str(error))
"""
    with traversable() as base:
        assert "none of the allowed roots" in run(code, base)["text"]


def test_an_ordinary_user_works_without_verbs() -> None:
    code = """
given = start.start(rootwrap_conf=base / "no-such.conf")
from agent.privsep import block, client
from agent.host.facts import host_facts
try:
    client.invoke(block.loop_list)
except PrivilegeUnavailable as error:
    told(mode=given.mode, contexts=given.contexts, code=error.code, remedy=error.remedy, boot=len(host_facts().boot_id))
"""
    with traversable() as base:
        found = run(code, base, user="nobody")
    assert found.pop("remedy").startswith("Start the agent as root")
    assert found == {"mode": "none", "contexts": [], "code": "privilege.unavailable", "boot": 36}


def test_a_lost_daemon_is_told_and_never_replaced() -> None:
    code = """
import signal, threading
start.start(["block"], roots=[base / "root"])
from agent.privsep import block, client
lost = threading.Event()
names = []
start.watch(lambda name: (names.append(name), lost.set()))
pid = int(Path(f"/proc/self/task/{os.getpid()}/children").read_text())
os.kill(pid, signal.SIGKILL)
heard = lost.wait(60)
try:
    client.invoke(block.loop_list)
except DaemonLost as error:
    told(heard=heard, names=names, code=error.code)
"""
    with traversable() as base:
        assert run(code, base) == {"heard": True, "names": ["block"], "code": "privilege.daemon-lost"}


def test_a_daemon_that_nobody_calls_stays_a_shell() -> None:
    code = """
start.start(["block", "crypt"], roots=[base / "root"])
light = not [name for name in sys.modules if name.startswith("oslo")]
from agent.privsep import block, client
kids = [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
def asleep():
    return [Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sh\\0") for pid in kids]
def pss(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
small = [pss(pid) < 2048 for pid in kids]
before = asleep()
client.invoke(block.loop_list)
names = {line.partition("=")[0] for pid in kids for line in Path(f"/proc/{pid}/environ").read_text().split("\\0")}
environ = sorted(names - {""})
stdin = [os.readlink(f"/proc/{pid}/fd/0").partition(":")[0] for pid in kids]
told(light=light, before=before, after=asleep(), small=small, environ=environ, stdin=stdin)
"""
    with traversable() as base:
        found = run(code, base)
    assert found == {
        "light": True, "before": [True, True], "after": [False, True], "small": [True, True],
        "environ": ["LC_ALL", "PATH", "PWD"], "stdin": ["/dev/null", "pipe"],
    }  # fmt: skip


def test_many_first_calls_at_once_wake_one_daemon() -> None:
    code = """
start.start(["block"], roots=[base / "root"])
from concurrent.futures import ThreadPoolExecutor
from agent.privsep import block, client
with ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(lambda _: isinstance(client.invoke(block.loop_list), (list, tuple)), range(8)))
told(answers=answers, kids=len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
"""
    with traversable() as base:
        assert run(code, base) == {"answers": [True] * 8, "kids": 1}


def test_a_daemon_that_can_not_start_is_told() -> None:
    code = """
import threading
sys.executable = "/bin/false"
start.start(["block"], roots=[base / "root"])
from agent.privsep import block, client
lost = threading.Event()
start.watch(lambda name: lost.set())
codes = []
for _ in range(2):
    try:
        client.invoke(block.loop_list)
    except DaemonLost as error:
        codes.append(error.code)
told(codes=codes, heard=lost.wait(60))
"""
    with traversable() as base:
        assert run(code, base) == {"codes": ["privilege.daemon-lost"] * 2, "heard": True}


def test_a_daemon_that_dies_with_a_call_unread_ends_its_callers() -> None:
    code = """
import signal
from concurrent.futures import ThreadPoolExecutor
start.start(["block"], roots=[base / "root"])
from agent.privsep import block, client
client.invoke(block.loop_list)
pid = int(Path(f"/proc/self/task/{os.getpid()}/children").read_text())
os.kill(pid, signal.SIGSTOP)
def call(_):
    try:
        client.invoke(block.loop_list)
    except DaemonLost as error:
        return error.code
with ThreadPoolExecutor(4) as pool:
    answers = pool.map(call, range(4))
    threading = __import__("threading")
    threading.Event().wait(0.3)
    os.kill(pid, signal.SIGKILL)
    told(answers=list(answers))
"""
    with traversable() as base:
        assert run(code, base) == {"answers": ["privilege.daemon-lost"] * 4}


def test_what_root_settled_reaches_the_daemon() -> None:
    code = """
dropped()
from agent.privsep import block, client
path, ident = volume(), str(uuid.uuid4())
made = client.invoke(block.loop_attach, str(path), False, ident)
refused = []
try:
    client.invoke(block.loop_attach, str(base / "elsewhere" / ident), False, ident)
except VerbRefused as error:
    refused.append(error.code)
gone = client.invoke(block.loop_detach, made["number"], made["diskseq"], ident)
told(made=made["created"], gone=gone, refused=refused)
"""
    if not Path("/dev/loop-control").exists():
        pytest.skip("no loop devices here")
    with traversable() as base:
        assert run(code, base) == {"made": True, "gone": True, "refused": ["privilege.refused"]}


def test_daemons_end_with_the_agent_and_outlive_a_ctrl_c() -> None:
    code = """
import signal
start.start(["block", "crypt"], roots=[base / "root"])
from agent.privsep import block, client
kids = [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
for pid in kids:
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
client.invoke(block.loop_list)
told(kids=kids)
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL) if len(sys.argv) > 2 else None
"""
    with traversable() as base:
        kids = run(code, base)["kids"]
    for pid in kids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        import select

        assert select.select([fd], [], [], 10)[0], f"daemon {pid} is still there"
        os.close(fd)


def test_enter_does_all_in_the_right_order() -> None:
    code = """
given = start.enter(base, user="brickyard-no-such-user", dev=True, roots=[base / "root"])
from agent.privsep import block, client
told(mode=given.mode, uid=os.getuid(), listed=isinstance(client.invoke(block.loop_list), (list, tuple)))
"""
    with traversable() as base:
        assert run(code, base) == {"mode": "forked", "uid": 65534, "listed": True}


def test_enter_as_an_ordinary_user_attaches_nothing_and_says_so() -> None:
    code = """
given = start.enter(base)
from agent.connectors import local
path, ident = volume(), str(uuid.uuid4())
async def main():
    try:
        listed, detached = await local.current(), await local.detach(ident)
    except PrivilegeUnavailable:
        return "asked", None, ""
    try:
        await local.attach(path, ident, 1 << 20)
    except PrivilegeUnavailable as error:
        return listed, detached, error.code
listed, detached, code = asyncio.run(main())
told(mode=given.mode, uid=os.getuid(), listed=listed, detached=detached, code=code)
"""

    def others() -> bool:
        return any(is_id(loop.file_name) for loop in sysfs.loop_devices())

    if others():
        pytest.skip("the file of a volume is bound already on this host")
    with traversable() as base:
        found = run(code, base, user="nobody")
        if found["listed"] == "asked" and others():
            pytest.skip("the file of a volume of another test was bound meanwhile")
    assert found == {
        "mode": "none", "uid": 65534, "listed": [], "detached": False, "code": "privilege.unavailable"
    }  # fmt: skip


def test_the_daemon_that_rootwrap_starts() -> None:
    """All but sudo itself: oslo.rootwrap, its filters, the helper in isolated mode, a verb."""
    code = """
from oslo_config import cfg
from agent.privsep import block, client
prefix = Path(sys.prefix)
python = prefix / "bin" / "python3"
(base / "filters").mkdir()
lines = Path(ROOT, "rootwrap.d/brickyard.filters").read_text().replace("/opt/brickyard/bin/python3", str(python))
(base / "filters" / "brickyard.filters").write_text(lines)
conf = Path(ROOT, "rootwrap.d/conf/rootwrap.conf").read_text()
conf = conf.replace("/etc/brickyard/rootwrap.d", str(base / "filters")).replace("use_syslog=True", "use_syslog=False")
(base / "rootwrap.conf").write_text(conf)
words = [prefix / "bin" / "oslo-rootwrap", base / "rootwrap.conf", python, "-I", "-m", "agent.privsep.helper"]
helper = " ".join(map(str, words))
cfg.CONF.set_override("helper_command", helper, group="privsep_brickyard_block")
client.set_mode("rootwrap")
path = volume()
try:
    client.invoke(block.loop_attach, str(path), True, str(uuid.uuid4()))
except VerbRefused as error:
    told(text=str(error))
"""
    code = f"ROOT = {str(ROOT)!r}\n" + code
    with traversable() as base:
        assert "none of the allowed roots" in run(code, base)["text"]


def test_limits_are_read_again_by_the_daemons_with_the_same_checks() -> None:
    """A root that is added is allowed from then on; a file that is another's changes nothing; one that is gone, all."""
    code = """
limits = base / "limits.toml"
limits.write_text("")
start.start(["block"], limits_file=limits)
nobody = account.choose("nobody")
from agent.privsep import block, client
path = volume()
os.chown(path, 65534, 65534)

def verdict():
    try:
        client.invoke(block.loop_attach, str(path), False, str(uuid.uuid4()))
    except VerbRefused as error:
        return error.code
    except BrickyardError as error:
        return "allowed" if "refused" not in error.code else error.code
    return "allowed"

from agent.base.errors import BrickyardError
seen = [verdict()]
limits.write_text(f'[block]\\nroots = ["{base / "root"}"]\\n')
seen.append(verdict())
start.limits_again()
seen.append(verdict())
limits.write_text("")
os.chown(limits, 65534, 65534)
start.limits_again()
seen.append(verdict())
limits.unlink()
start.limits_again()
seen.append(verdict())
told(seen=seen)
"""
    with traversable() as base:
        found = run(code, base)
        for name in bound(base):
            subprocess.run(["losetup", "-d", f"/dev/{name}"], check=False)
    first = found["seen"][0]
    assert first != "allowed"
    assert found["seen"] == [first, first, "allowed", "allowed", first]
