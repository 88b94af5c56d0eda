"""Register two encrypted images, make a volume of each, and prove what the volumes are."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor

from demo import proof
from demo.place import DemoFailed
from demo.prepare import SOURCE_BYTES, Packed, Secret
from demo.story import GiB, Story

ENCRYPTED, PLAIN = "encrypted", "plain"


def tell(story: Story) -> None:
    _register(story)
    _create(story)
    _prove(story)


def _register(story: Story) -> None:
    with story.report.step("Register two encrypted images") as step:
        for image in story.images:
            register(story, image)
            step.bytes += image.size
            shown = story.api.get(f"/image/v2/images/{image.id}")
            if shown["status"] != "active" or shown["os_encrypt_key_id"] != image.key_id:
                raise DemoFailed(f"the image is not as it was registered: {shown}")
            story.report.proved(
                f"image {image.id}: {shown['os_encrypt_format']}, {shown['os_decrypt_size']} clear bytes, secret of "
                f"type {image.secret.type}, which goes with it ({shown['os_encrypt_key_deletion_policy']})"
            )


def register(story: Story, image: Packed) -> None:
    """The secret, the image with the properties that tell of its encryption, its bytes."""
    payload = base64.b64encode(image.secret.value).decode()
    key = {"type": image.secret.type, "payload_b64": payload, "name": image.path.name}
    image.key_id = story.api.post("/brickyard/v1/keys", {"key": key})["key"]["id"]
    image.id = story.api.post(
        "/image/v2/images",
        {
            "name": image.path.name,
            "disk_format": "qcow2",
            "container_format": "bare",
            "os_encrypt_format": "LUKSv1",
            "os_encrypt_key_id": image.key_id,
            "os_encrypt_key_deletion_policy": "on_image_deletion",
            "os_decrypt_size": str(SOURCE_BYTES),
        },
    )["id"]
    story.api.upload(f"/image/v2/images/{image.id}/file", image.path)


def _create(story: Story) -> None:
    with story.report.step("A volume from each image") as step:
        for name in (ENCRYPTED, PLAIN):
            made = story.api.post("/v3/types", {"volume_type": {"name": name}})["volume_type"]["id"]
            if name == ENCRYPTED:
                how = {"provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256,
                       "control_location": "front-end"}  # fmt: skip
                story.api.post(f"/v3/types/{made}/encryption", {"encryption": how})
        story.report.proved("volume type `encrypted` (luks, aes-xts-plain64, 256 bits)")
        names = [f"from-{image.secret.type}" for image in story.images]
        with story.report.progress(*names) as tellers:
            for image, name in zip(story.images, names, strict=True):
                volume = story.api.create_volume(name, size=1, imageRef=image.id, volume_type=ENCRYPTED)
                story.kept[volume] = 1
            with ThreadPoolExecutor(2) as pool:
                jobs = [pool.submit(story.api.done, volume, tellers[name])
                        for volume, name in zip(story.kept, names, strict=True)]  # fmt: skip
                for job in jobs:
                    job.result()
        step.bytes = len(names) * GiB
        for volume in story.kept:
            shown = story.api.volume(volume)
            if (shown["status"], shown["encrypted"], shown["size"]) != ("available", True, 1):
                raise DemoFailed(f"the volume is not as it was asked for: {shown}")
        story.check_books()
        story.report.proved("both are available, encrypted, of 1 GiB; files and quota agree")


def _prove(story: Story) -> None:
    with story.report.step("What the volumes are") as step:
        pairs = list(zip(story.kept, story.images, strict=True))
        with ThreadPoolExecutor(2) as pool:
            step.bytes = sum(pool.map(lambda pair: prove_volume(story, pair[0], pair[1]), pairs))
        for volume, image in pairs:
            story.report.proved(
                f"{volume}: raw LUKS, opens with its own clone of the {image.secret.type} (another key id), "
                f"{GiB} bytes inside, the first {SOURCE_BYTES} have the sha256 of the source"
            )


def prove_volume(
    story: Story, volume: str, image: Packed, gib: int = 1, *, brief: bool = False, rekeyed: bool = False
) -> int:
    """Everything that must be so of a volume made of `image`; returns the bytes that were read.

    `brief` looks at no more than the beginning of the zeros after the image. `rekeyed`: a copy of such a volume, whose
    secret is another one.
    """
    key_id = story.api.volume(volume)["encryption_key_id"]
    if key_id == image.key_id:
        raise DemoFailed(f"volume {volume} uses the secret of its image instead of a clone")
    secret = proof.own_secret(story.site, key_id)
    if ((secret.type, secret.value) == (image.secret.type, image.secret.value)) == rekeyed:
        raise DemoFailed(f"the secret of volume {volume} is {'' if rekeyed else 'not '}a clone of the image's")
    path = story.path(volume)
    proof.is_raw_luks(path)
    proof.opens(path, secret)
    proof.stays_shut(path, image.secret if rekeyed else Secret("passphrase", b"not the passphrase"))
    size = proof.inside(path, secret)
    if size != gib * GiB:
        raise DemoFailed(f"volume {volume} gives {size} bytes inside instead of {gib} GiB")
    return proof.content(story.place, path, secret, story.source, proof.BRIEF if brief else GiB)
