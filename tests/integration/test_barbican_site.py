"""A whole site among a real Keystone, Glance and Barbican: keys of images that lie in Barbican alone, keys replaced."""

from __future__ import annotations

import shutil
import time
import urllib.error
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.barbican import Barbican
from tests.support.cloud import Cloud, GlanceSite
from tests.support.cloud import cloud as standing
from tests.support.images import content_of, decrypted, encrypted_qcow2
from tests.support.luks import opens

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.clients,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not (shutil.which("qemu-img") and shutil.which("cryptsetup")), reason="needs qemu-img, cryptsetup"
    ),
]
PHRASE = b"a phrase of ann's"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    sets = ("keys.barbican.interface=public", "keys.barbican.interval_s=0.3", "keys.barbican.timeout_s=120")
    make = partial(GlanceSite, sets=sets)
    with standing(tmp_path_factory.mktemp("cloud"), make, secrets=True) as made:
        made.site.api.encrypted_type()
        yield made


def until(what: Callable[[], Any], seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def keeper(cloud: Cloud) -> Barbican:
    assert cloud.secrets is not None
    return cloud.secrets


def payload(cloud: Cloud, key_id: str, who: str = "ann", project: str = "one") -> bytes | None:
    """What Barbican gives that user."""
    try:
        return keeper(cloud).payload(key_id, token=cloud.token(who, project))
    except urllib.error.HTTPError as error:
        if error.code not in (403, 404):
            raise
        return None


def deposited(cloud: Cloud, volume_id: str) -> str:
    """The volume's key once it lies in Barbican."""

    def found() -> str | None:
        key = str(cloud.site.api.volume(volume_id)["encryption_key_id"])
        return key if payload(cloud, key) is not None else None

    return str(until(found))


def encrypted_image(cloud: Cloud, folder: Path, name: str, content: bytes, key_id: str, *words: str) -> str:
    (folder / "disk").write_bytes(encrypted_qcow2(folder, content, PHRASE))
    made = cloud.run("image", "create", "--file", str(folder / "disk"), "--disk-format", "qcow2", name, "-f", "json",
                     "--property", f"os_encrypt_key_id={key_id}", "--property", "os_encrypt_format=LUKSv1",
                     "--property", f"os_decrypt_size={len(content)}", *words)  # fmt: skip
    return str(made["id"])


def volume(cloud: Cloud, name: str, image: str) -> dict[str, Any]:
    made = cloud.run("volume", "create", "--image", image, "--type", "secret", "--size", "1", name, "-f", "json")
    found = cloud.site.settled(made["id"])
    assert found["status"] == "available", (found, cloud.site.api.get("/v3/messages"), cloud.site.logs())
    return found


def gone(cloud: Cloud, *names: str) -> None:
    cloud.run("volume", "delete", *names)
    cloud.site.api.settle(300)


def test_a_volume_outlives_its_image_and_the_images_key_in_barbican(cloud: Cloud, tmp_path: Path) -> None:
    content, api = content_of(), cloud.site.api
    stored = {"name": "of the image", "secret_type": "passphrase", "payload": PHRASE.decode(),
              "payload_content_type": "text/plain"}  # fmt: skip
    ref = keeper(cloud).call("POST", "/secrets", stored, token=cloud.token())["secret_ref"]
    key_id = str(ref).rpartition("/")[2]
    image = encrypted_image(cloud, tmp_path, "theirs", content, key_id)
    made = volume(cloud, "outliving", image)
    own = deposited(cloud, made["id"])
    assert own != key_id
    # Nobody makes an open volume of it, and one who may not read the key makes none at all.
    complaint = cloud.run("volume", "create", "--image", image, "--size", "1", "open", fails=True)
    assert "encrypt" in complaint
    cloud.run("image", "set", "--public", image, who="boss")
    complaint = cloud.run("volume", "create", "--image", image, "--type", "secret", "--size", "1", "bea's",
                          who="bea", project="two", fails=True)  # fmt: skip
    assert key_id in complaint or "key" in complaint
    assert cloud.run("volume", "list", "-f", "json", who="bea", project="two") == []
    cloud.run("image", "delete", image)
    keeper(cloud).call("DELETE", f"/secrets/{key_id}", token=cloud.token())
    path = cloud.site.volume(made["id"])
    value = payload(cloud, own)
    assert value is not None
    assert value == PHRASE, "the copy keeps its type and value"
    assert opens(path, value)
    assert decrypted(tmp_path, path, value, len(content)) == content
    # Without the secret there is no further volume, and none is begun.
    again = encrypted_image(cloud, tmp_path, "keyless", content, key_id)
    cloud.run("volume", "create", "--image", again, "--type", "secret", "--size", "1", "late", fails=True)
    assert [one["name"] for one in api.volumes()] == ["outliving"]
    cloud.run("image", "delete", again)
    gone(cloud, "outliving")
    until(lambda: payload(cloud, own) is None)
    cloud.site.clean()


def test_a_key_is_replaced_in_barbican_too(cloud: Cloud, tmp_path: Path) -> None:
    content, run = content_of(), cloud.run
    (tmp_path / "phrase").write_bytes(PHRASE)
    key = run("brickyard", "key", "register", "--file", str(tmp_path / "phrase"), "--name", "registered", "--json")
    image = encrypted_image(cloud, tmp_path, "ours", content, key["id"])
    made = [volume(cloud, name, image) for name in ("one", "other")]
    former = {one["id"]: deposited(cloud, one["id"]) for one in made}
    run("volume", "snapshot", "create", "--volume", "other", "kept", "-f", "json")
    cloud.site.api.settle(300)
    said = cloud.type("brickyard", "key", "replace", key["id"], "--yes", "--json", who="boss")
    assert (said.code, said.json()["replaced"], said.json()["left"]) == (1, 1, 1), said.out + said.err
    assert "snapshot" in said.out
    run("volume", "snapshot", "delete", "kept")
    cloud.site.api.settle(300)
    said = cloud.type("brickyard", "key", "replace", key["id"], "--yes", "--json", who="boss")
    assert (said.code, said.json()["replaced"]) == (0, 1), said.out + said.err
    for one in made:
        path, fresh = cloud.site.volume(one["id"]), deposited(cloud, one["id"])
        assert fresh != former[one["id"]]
        until(lambda key_id=former[one["id"]]: payload(cloud, key_id) is None)
        value = payload(cloud, fresh)
        assert value is not None
        assert opens(path, value.hex().encode()), "no passphrase: hex-encoded"
        assert not opens(path, PHRASE)
        assert decrypted(tmp_path, path, value.hex().encode(), len(content)) == content
    # The image has its key still.
    again = volume(cloud, "again", image)
    assert opens(cloud.site.volume(again["id"]), PHRASE)
    gone(cloud, "one", "other", "again")
    run("image", "delete", image)
    run("brickyard", "key", "delete", "registered", "--yes")
    cloud.site.clean()
    listed = keeper(cloud).call("GET", "/secrets?limit=100", token=cloud.token("brickyard", "service"))["secrets"]
    assert listed == []


def transferred(cloud: Cloud, name: str, *, who: str, project: str) -> None:
    """The volume is given away by ann, once with a wrong key, which changes nothing."""
    offer = cloud.run("volume", "transfer", "request", "create", name, "-f", "json")
    accept = ("volume", "transfer", "request", "accept", offer["id"], "-f", "json", "--auth-key")
    cloud.run(*accept, "0" * 16, who=who, project=project, fails=True)
    cloud.run(*accept, offer["auth_key"], who=who, project=project)


def consumers(cloud: Cloud, key_id: str) -> list[str]:
    version = {"OpenStack-API-Version": "key-manager 1.1"}
    token = cloud.token("brickyard", "service")
    found = keeper(cloud).call("GET", f"/secrets/{key_id}/consumers", token=token, **version)["consumers"]
    return [one["resource_id"] for one in found]


def ours(cloud: Cloud) -> set[str]:
    """The secrets of this site in Barbican."""
    listed = keeper(cloud).call("GET", "/secrets?limit=100", token=cloud.token("brickyard", "service"))["secrets"]
    return {one["secret_ref"].rpartition("/")[2] for one in listed}


def only(cloud: Cloud, *keys: str) -> None:
    """Barbican has these keys of ours and no other one, after a while."""
    cloud.site.api.settle(300)
    until(lambda: ours(cloud) == set(keys))


def test_a_key_goes_and_stays_with_its_volume_alone(cloud: Cloud, tmp_path: Path) -> None:
    content, run, api = content_of(), cloud.run, cloud.site.api
    stored = {"name": "of the image", "secret_type": "passphrase", "payload": PHRASE.decode(),
              "payload_content_type": "text/plain"}  # fmt: skip
    ref = keeper(cloud).call("POST", "/secrets", stored, token=cloud.token())["secret_ref"]
    theirs = str(ref).rpartition("/")[2]
    image = encrypted_image(cloud, tmp_path, "theirs", content, theirs)
    made = volume(cloud, "made", image)["id"]
    key = deposited(cloud, made)
    only(cloud, key)
    # A copy has a key of its own, which goes with it alone; so has a volume of a snapshot. The snapshot has none there.
    for words in (("--source", "made"), ("--snapshot", "then")):
        if words[0] == "--snapshot":
            run("volume", "snapshot", "create", "--volume", "made", "then", "-f", "json")
            api.settle(300)
            only(cloud, key)
        copy = run("volume", "create", *words, "--size", "1", "copy", "-f", "json")["id"]
        assert cloud.site.settled(copy)["status"] == "available"
        other = deposited(cloud, copy)
        only(cloud, key, other)
        assert (consumers(cloud, key), consumers(cloud, other)) == ([made], [copy])
        value = payload(cloud, other)
        assert value is not None
        assert decrypted(tmp_path, cloud.site.volume(copy), value.hex().encode(), len(content)) == content
        gone(cloud, "copy")
        only(cloud, key)
    run("volume", "snapshot", "delete", "then")
    api.settle(300)
    only(cloud, key)
    # What fails takes nothing along but its own.
    wrong = keeper(cloud).call("POST", "/secrets", {**stored, "payload": "another"}, token=cloud.token())["secret_ref"]
    misfit = encrypted_image(cloud, tmp_path, "misfit", content, str(wrong).rpartition("/")[2])
    failed = run("volume", "create", "--image", misfit, "--type", "secret", "--size", "1", "failed", "-f", "json")["id"]
    assert cloud.site.settled(failed)["status"] == "error"
    gone(cloud, "failed")
    only(cloud, key)
    # Given away: the taker has a key of his own, and the giver none.
    transferred(cloud, "made", who="bea", project="two")
    taken = until(lambda: next(iter(ours(cloud) - {key}), None))
    only(cloud, taken)
    assert (payload(cloud, key), consumers(cloud, taken)) == (None, [made])
    assert (payload(cloud, taken, "bea", "two"), payload(cloud, taken)) == (PHRASE, None)
    assert opens(cloud.site.volume(made), PHRASE)
    run("volume", "delete", "made", who="bea", project="two")
    only(cloud)
    # What is theirs stays theirs.
    assert payload(cloud, theirs) == PHRASE
    run("image", "delete", image, misfit)
    cloud.site.clean()


def test_another_encryption_takes_the_former_key_along(cloud: Cloud, tmp_path: Path) -> None:
    content, api = content_of(), cloud.site.api
    api.encrypted_type("other", "luks2")
    api.post("/v3/types", {"volume_type": {"name": "plain"}})
    (tmp_path / "raw").write_bytes(content)
    image = cloud.run("image", "create", "--file", str(tmp_path / "raw"), "--disk-format", "raw", "open", "-f", "json")
    made = volume(cloud, "changing", image["id"])["id"]
    keys = [deposited(cloud, made)]
    for name in ("other", "plain", "secret"):
        cloud.run("volume", "set", "--type", name, "--migration-policy", "on-demand", "changing")
        api.settle(300)
        assert cloud.site.settled(made)["volume_type"] == name
        if name == "plain":
            only(cloud)
            with cloud.site.volume(made).open("rb") as file:
                assert file.read(len(content)) == content
            continue
        keys.append(deposited(cloud, made))
        only(cloud, keys[-1])
        value = payload(cloud, keys[-1])
        assert value is not None
        assert opens(cloud.site.volume(made), value.hex().encode())
    assert len(set(keys)) == 3
    assert [payload(cloud, key) for key in keys[:-1]] == [None, None]
    gone(cloud, "changing")
    only(cloud)
    cloud.run("image", "delete", image["id"])
    cloud.site.clean()
