"""A real forked daemon under hostile calls over the raw channel: each is refused, nothing is attached."""

from __future__ import annotations

import os

import pytest

from tests.integration.agent.privsep_child import ROOT, bound, run, traversable

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="a privileged daemon needs root"),
]

FUZZ = """
dropped()
from hypothesis import HealthCheck, given, settings, strategies as st
block, crypt, net = channel("block"), channel("crypt"), channel("net")
ident = str(uuid.uuid4())
iqn = "iqn.2026-01.io.test:" + ident
target = volume()
text = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    st.sampled_from(["..", "/", "-", "--help", "\\0", "/etc/shadow", f"../{ident}", f"{target}/..", f"{target}\\0",
                     f"{base}/root/../{ident}", f"/{target}", f"{base}/root/./volumes/{target.name}", "/dev/vda"]),
)
anything = st.one_of(text, st.integers(-5, 1 << 40), st.binary(max_size=64), st.none(), st.booleans(),
                     st.lists(text, max_size=3), st.dictionaries(text, text, max_size=2))
seen = set()

def refused(channel, name, *args, **more):
    try:
        answer = channel.remote_call(f"agent.privsep.{name}", args, more, None)
    except (VerbRefused, DeviceForeign) as error:
        seen.add(error.code)
        return
    assert answer is False, (name, args, answer)

@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(anything, anything, anything)
def fuzz(one, two, three):
    text = f"tcp,{one}"
    refused(block, "block.loop_attach", one, two if isinstance(two, bool) else True, ident)
    refused(block, "block.loop_attach", str(target), one if not isinstance(one, bool) else None, ident)
    refused(block, "block.loop_attach", str(target), True, one)
    refused(block, "block.loop_detach", one, two, three)
    refused(block, "block.loop_detach", 0, None, ident)
    refused(block, "block.loop_flush", one, two, three)
    refused(block, "block.loop_resize", one, two, three)
    refused(crypt, "crypt.crypt_open", one, two, three, b"x", True)
    refused(crypt, "crypt.crypt_open", "/dev/loop0", None, ident, b"x", True)
    refused(crypt, "crypt.crypt_open", "/dev/loop0", None, ident, one if one else None, True)
    refused(crypt, "crypt.crypt_close", one)
    refused(crypt, "crypt.crypt_resize", one, b"x")
    refused(net, "lio.lio_apply", one, two, three, [], [])
    refused(net, "lio.lio_apply", ident, one, None, [[two, three]], [])
    refused(net, "lio.lio_apply", ident, "/dev/loop0", None, [["127.0.0.1", 3260]], [[one, two, three, b"x"]])
    refused(net, "lio.lio_apply", ident, "/dev/vda", None, [], [])
    refused(net, "nvmet.nvmet_apply", one, two, three, [], [])
    refused(net, "nvmet.nvmet_apply", ident, one, None, [["127.0.0.1", 4420, two]], [])
    refused(net, "nvmet.nvmet_apply", ident, "/dev/loop0", None, [["127.0.0.1", 4420, True]], [three])
    refused(net, "nvmet.nvmet_apply", ident, "/dev/vda", None, [], [])
    refused(net, "nvmet.nvmet_remove", one)
    refused(net, "nvmet.nvmet_remove", ident, transport=text)
    refused(net, "nvmet.nvmet_apply", ident, "/dev/loop0", None, [], [], transport=text)
    refused(net, "nvme.nvme_connect", "nqn.2026-01.org.x:y", "127.0.0.1", 4420, 15, transport=text)
    refused(net, "lio.lio_apply", ident, "/dev/loop0", None, [], [], fabric=text)
    refused(net, "lio.lio_remove", ident, fabric=text)
    refused(net, "nvme.nvme_connect", one, "127.0.0.1", 4420, 15)
    refused(net, "nvme.nvme_connect", "nqn.2026-01.org.x:y,transport=rdma", "127.0.0.1", 4420, 15)
    refused(net, "nvme.nvme_connect", "nqn.2026-01.org.x:y", two, 4420, 15)
    refused(net, "md.md_examine", [one, two])
    refused(net, "md.md_create", one, ident, ["nvme0n1"])
    refused(net, "md.md_create", "x", ident, ["nvme999n1"])
    refused(net, "md.md_assemble", "x", one, two)
    refused(net, "md.md_stop", three)
    refused(net, "md.md_add", "md127", one)
    refused(net, "md.md_drop", "md127", two)
    refused(net, "nvme.nvme_release", "nqn.2026-01.org.x:y", three)
    refused(net, "nvme.nvme_disconnect", two)
    refused(net, "nvme.nvme_disconnect", "nqn.2026-01.org.x:y", [three])
    refused(net, "iscsi.iscsi_login", one, two, three, 0)
    refused(net, "iscsi.iscsi_login", iqn, one, two, 0)
    refused(net, "iscsi.iscsi_login", iqn, "127.0.0.1", 3260, [three])
    refused(net, "iscsi.iscsi_login_again", iqn, "127.0.0.1", 3260, [three])
    refused(net, "iscsi.iscsi_forget", iqn, [[one, two]])
    refused(net, "iscsi.iscsi_forget", iqn, [one, two])
    refused(net, "iscsi.iscsi_forget", one, [["127.0.0.1", 3260]])
    refused(net, "iscsi.iscsi_logout", 0, iqn, [one])
    refused(net, "iscsi.iscsi_logout", one, two)
    refused(net, "iscsi.scsi_scan", one, two, three, 0)
    refused(net, "iscsi.scsi_scan", 0, 0, 0, 0)
    refused(net, "iscsi.scsi_delete", one, two)
    refused(net, "iscsi.scsi_delete", "0:0:0:0", False)
    refused(net, "multipath.multipath_add", one)
    refused(net, "multipath.multipath_remove", one)
fuzz()
told(seen=sorted(seen), left=block.remote_call("agent.privsep.block.loop_list", (), {}, None))
"""


def test_every_verb_refuses_hostile_arguments() -> None:
    with traversable() as base:
        found = run(FUZZ, base)
        assert bound(base) == {}
    assert found["seen"] == ["device.foreign", "privilege.refused"]
    assert not [left for left in found["left"] if str(base) in left["backing_file"]]


def test_only_verbs_of_the_context_can_be_called() -> None:
    code = """
dropped()
answers = []
for name in ("os.system", "agent.privsep.crypt.crypt_close", "agent.privsep.tool.run", "agent.privsep.limits.use"):
    try:
        channel("block").remote_call(name, ("x",), {}, None)
    except NameError as error:
        answers.append("not exported" in str(error))
told(answers=answers)
"""
    with traversable() as base:
        assert run(code, base) == {"answers": [True] * 4}


def test_a_secret_is_in_no_log() -> None:
    code = """
import io, logging
stream = io.StringIO()
logging.basicConfig(level=logging.DEBUG, stream=stream)
logging.getLogger("oslo_privsep.daemon").setLevel(logging.DEBUG)
dropped()
from agent.privsep import client, crypt
secret = b"canary-secret-5f1e"
errors = []
loop = "/dev/loop0"
ident = str(uuid.uuid4())
for args in ((loop, None, ident, secret, True), (0, None, "x", secret, True), (loop, None, secret, secret, "x")):
    try:
        client.invoke(crypt.crypt_open, *args)
    except Exception as error:
        errors.append(str(error) + repr(error.args))
told(count=len(errors), leaked="canary" in stream.getvalue() + "".join(errors), logged=len(stream.getvalue()) > 0)
"""
    with traversable() as base:
        assert run(code, base) == {"count": 3, "leaked": False, "logged": True}


def test_os_brick_daemon_refuses_foreign_arguments() -> None:
    code = f"""
import shutil
filters = base / "filters"
filters.mkdir(mode=0o755)
shutil.copy("{ROOT}/rootwrap.d/os-brick.filters", filters)
from agent.connectors import _brick
others = _brick.contexts(filters)
start.start(["block"], roots=[base / "root"], others=others)
channel = others[0].channel
victim = base / "victim"
victim.write_text("x")
calls = {{
    "rootwrap.execute_root": ("cat", "/etc/shadow"),
    "rootwrap.unlink_root": (str(victim),),
    "rootwrap.link_root": ("/dev/vda", str(victim)),
}}
answers = []
for name, args in calls.items():
    try:
        channel.remote_call("os_brick.privileged." + name, args, {{}}, None)
        answers.append("done")
    except VerbRefused as error:
        answers.append(error.code)
for name in ("rbd.delete_if_exists", "lightos.delete_dsc_file", "scaleio.get_guid", "rootwrap.custom_execute"):
    try:
        channel.remote_call("os_brick.privileged." + name, (str(victim),), {{}}, None)
        answers.append("done")
    except Exception as error:
        answers.append(type(error).__name__)
out, err = channel.remote_call(
    "os_brick.privileged.rootwrap.execute_root", ("blockdev", "--getsize64", "/dev/loop0"), {{}}, None)
told(answers=answers, there=victim.read_text(), allowed=out.strip().isdigit(), here=sys.modules["eventlet"] is None)
"""
    with traversable() as base:
        found = run(code, base)
    assert found["answers"][:3] == ["privilege.refused"] * 3
    assert "done" not in found["answers"]
    assert (found["there"], found["allowed"], found["here"]) == ("x", True, True)
