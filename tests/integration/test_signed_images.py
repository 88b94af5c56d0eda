"""Signed images become volumes when their bytes are the signed ones, and their signers those that are trusted."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.base.ids import new_id
from tests.support.api import Refused
from tests.support.signing import Holder, holder
from tests.support.site import Site, running

DATA = b"what was signed " * 65536
ROOT, OTHER = holder("root", ca=True), holder("other", ca=True)
SIGNER = holder("signer", ROOT)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running(1) as made:
        made.api.versions = "volume 3.71, brickyard 1.1"
        yield made


def certificate(site: Site, one: Holder, name: str = "c", *, der: bool = False) -> str:
    value = base64.b64encode(one.der if der else one.pem).decode()
    key = {"type": "certificate", "name": name, "payload_b64": value}
    return str(site.api.post("/brickyard/v1/keys", {"key": key})["key"]["id"])


def image(site: Site, properties: dict[str, str], data: bytes = DATA) -> str:
    body = {"name": "signed", "disk_format": "raw", "container_format": "bare", **properties}
    image_id = str(site.api.post("/image/v2/images", body)["id"])
    site.api.call("PUT", f"/image/v2/images/{image_id}/file", data)
    return image_id


def kept(site: Site, image_id: str) -> Path:
    return next(site.layout.folder.rglob(f"images/{image_id}"))


def tampered(site: Site, image_id: str) -> None:
    """As somebody does who has the store: the file is another one, of the same size."""
    path = kept(site, image_id)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(100_000)
        file.write(b"!")


def volume(site: Site, image_id: str, **more: Any) -> dict[str, Any]:
    volume_id = site.api.create_volume("v", imageRef=image_id, **more)
    site.api.settle(60)
    return site.api.volume(volume_id)


def complaint(site: Site, volume_id: str) -> str:
    found = site.api.get("/v3/messages")["messages"]
    return next(str(one["user_message"]) for one in found if one["resource_uuid"] == volume_id)


def files(site: Site) -> set[str]:
    return {path.name for path in (site.layout.volumes(site.volume_host) / "volumes").iterdir()}


def content(site: Site, volume_id: str) -> bytes:
    return (site.layout.volumes(site.volume_host) / "volumes" / volume_id).read_bytes()[: len(DATA)]


@pytest.mark.parametrize("der", [False, True])
def test_a_signed_image_is_verified_and_the_volume_says_so(site: Site, der: bool) -> None:
    image_id = image(site, SIGNER.properties(DATA, certificate(site, SIGNER, der=der)))
    made = volume(site, image_id)
    assert made["status"] == "available", complaint(site, made["id"])
    told = made["volume_image_metadata"]
    assert (told["signature_verified"], told["certificates_validated"]) == ("True", "False")
    assert hashlib.sha256(content(site, made["id"])).digest() == hashlib.sha256(DATA).digest()


def test_one_flipped_byte_leaves_an_error_and_no_byte_of_it(site: Site) -> None:
    image_id = image(site, SIGNER.properties(DATA, certificate(site, SIGNER)))
    tampered(site, image_id)
    made = volume(site, image_id)
    assert made["status"] == "error"
    assert "signature" in complaint(site, made["id"])
    assert made["id"] not in files(site)
    assert "volume_image_metadata" not in made


def test_unsigned_is_said_and_half_signed_is_refused(site: Site) -> None:
    plain = volume(site, image(site, {"signature_verified": "True"}))
    assert (plain["status"], plain["volume_image_metadata"]["signature_verified"]) == ("available", "False")
    properties = SIGNER.properties(DATA, certificate(site, SIGNER))
    del properties["img_signature_key_type"]
    half = volume(site, image(site, properties))
    assert half["status"] == "error"
    assert "incomplete" in complaint(site, half["id"])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"img_signature_hash_method": "MD5"}, "hash method"),
        ({"img_signature": "no base64!"}, "base64"),
        ({"img_signature_certificate_uuid": "00000000-0000-4000-8000-00000000beef"}, "can not be used"),
        ({"img_signature_certificate_uuid": "../../v1/secrets"}, "can not be used"),
    ],
)
def test_what_can_not_be_verified_is_an_error_that_says_why(site: Site, change: dict[str, str], word: str) -> None:
    made = volume(site, image(site, SIGNER.properties(DATA, certificate(site, SIGNER)) | change))
    assert made["status"] == "error"
    assert word in complaint(site, made["id"])
    assert made["id"] not in files(site)


def test_a_certificate_that_ran_out_is_none_and_a_secret_of_another_type_never_leaves_the_store(site: Site) -> None:
    gone = holder("gone", ROOT, days=(-5, -1))
    made = volume(site, image(site, gone.properties(DATA, certificate(site, gone))))
    assert made["status"] == "error"
    assert "dates" in complaint(site, made["id"])
    key = {"type": "opaque", "payload_b64": base64.b64encode(SIGNER.pem).decode()}
    other = str(site.api.post("/brickyard/v1/keys", {"key": key})["key"]["id"])
    made = volume(site, image(site, SIGNER.properties(DATA, other)))
    assert "can not be used" in complaint(site, made["id"])


def test_whoever_names_trusted_certificates_is_not_passed_over(site: Site) -> None:
    signed = image(site, SIGNER.properties(DATA, certificate(site, SIGNER)))
    root, other = certificate(site, ROOT, "root"), certificate(site, OTHER, "other")
    made = volume(site, signed, trusted_image_certificates=[other, root])
    told = made["volume_image_metadata"]
    assert (made["status"], told["signature_verified"], told["certificates_validated"]) == ("available", "True", "True")
    assert told["trusted_image_certificates"] == f"{other},{root}"
    for ids in ([other], ["no such thing"]):
        made = volume(site, signed, trusted_image_certificates=ids)
        assert made["status"] == "error"
        assert "not trusted" in complaint(site, made["id"])
    made = volume(site, image(site, {}), trusted_image_certificates=[root])
    assert made["status"] == "error"
    assert "not signed" in complaint(site, made["id"])


def test_the_list_is_checked_and_is_unknown_to_other_versions(site: Site) -> None:
    signed = image(site, SIGNER.properties(DATA, certificate(site, SIGNER)))
    before = len(site.api.volumes())
    for wrong in ([new_id() for _ in range(51)], ["a", "a"], [1], "a", [""]):
        with pytest.raises(Refused) as refused:
            site.api.create_volume("v", imageRef=signed, trusted_image_certificates=wrong)
        assert refused.value.status == 400
    with pytest.raises(Refused) as refused:
        site.api.create_volume("v", trusted_image_certificates=["a"])
    assert refused.value.status == 400
    site.api.versions = "volume 3.71"
    try:
        with pytest.raises(Refused, match="Additional properties"):
            site.api.create_volume("v", imageRef=signed, trusted_image_certificates=["a"])
    finally:
        site.api.versions = "volume 3.71, brickyard 1.1"
    assert len(site.api.volumes()) == before


def test_a_reimage_is_verified_too_and_the_old_content_stays_when_it_fails(site: Site) -> None:
    good = image(site, SIGNER.properties(DATA, certificate(site, SIGNER)))
    made = volume(site, image(site, {}, b"before" * 1000))
    bad = image(site, SIGNER.properties(DATA, certificate(site, SIGNER)))
    tampered(site, bad)
    action = f"/v3/volumes/{made['id']}/action"
    site.api.post(action, {"os-reimage": {"image_id": bad}})
    site.api.settle(60)
    assert content(site, made["id"]).startswith(b"before")
    assert "signature" in complaint(site, made["id"])
    half = image(site, {"img_signature": "x"})
    with pytest.raises(Refused, match="incomplete"):
        site.api.post(action, {"os-reimage": {"image_id": half}})
    site.api.post(action, {"os-reimage": {"image_id": good}})
    site.api.settle(60)
    found = site.api.volume(made["id"])
    assert (found["status"], content(site, made["id"])) == ("available", DATA)
    assert found["volume_image_metadata"]["signature_verified"] == "True"


def test_nobody_else_says_what_was_verified(site: Site) -> None:
    made = volume(site, image(site, {}))
    action = f"/v3/volumes/{made['id']}/action"
    for key in ("signature_verified", "certificates_validated", "cinder_encryption_key_id", "os_encrypt_key_id"):
        with pytest.raises(Refused) as refused:
            site.api.post(action, {"os-set_image_metadata": {"metadata": {key: "True"}}})
        assert refused.value.status == 400
    with pytest.raises(Refused):
        site.api.post(action, {"os-unset_image_metadata": {"key": "signature_verified"}})
    signed = volume(site, image(site, SIGNER.properties(DATA, certificate(site, SIGNER))))
    upload = {"os-volume_upload_image": {"image_name": "again"}}
    again = site.api.post(f"/v3/volumes/{signed['id']}/action", upload)["os-volume_upload_image"]["image_id"]
    site.api.settle(600)
    found = site.api.get(f"/image/v2/images/{again}")
    assert not [key for key in found if "sign" in key or "certificate" in key]


def test_the_site_can_want_trusted_signers_or_no_verification_at_all(site: Site) -> None:
    """The last one here: it starts the coordinator anew."""
    root, other = certificate(site, ROOT, "root"), certificate(site, OTHER, "other")
    signed = image(site, SIGNER.properties(DATA, certificate(site, SIGNER)))
    for ids, status in (("[]", "error"), (f'["{root}"]', "available"), (f'["{other}"]', "error")):
        site.coordinator.stop()
        site.restart("coordinator", "images.validate_certificates=true", f"images.trusted_certificates={ids}")
        site.coordinator.heard("up")
        assert volume(site, signed)["status"] == status
    assert volume(site, signed, trusted_image_certificates=[root])["status"] == "available"
    tampered(site, signed)
    site.coordinator.stop()
    site.restart("coordinator", "images.verify_signatures=false")
    site.coordinator.heard("up")
    made = volume(site, signed)
    assert made["status"] == "available"
    assert "signature_verified" not in made["volume_image_metadata"]
    with pytest.raises(Refused, match="does not verify"):
        site.api.create_volume("v", imageRef=signed, trusted_image_certificates=[root])
