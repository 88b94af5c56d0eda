"""Images with their encryption said in plain words: the same catalog as `/image/v2`, in one call with the secret."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from coordinator.api.brickyard.keys import Type, decoded
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Body, Hidden, Name, Uuid
from coordinator.api.image.common import caller_of
from coordinator.api.image.images import delete_image
from coordinator.api.image.queries import filters_of, page_of
from coordinator.api.image.views import ImageAnswer, image_view
from coordinator.api.route import Resource, delete, get, post
from coordinator.images import catalog, info
from coordinator.images.catalog import Image
from coordinator.images.errors import ImageInvalid
from coordinator.keys.store import MAX_BYTES, KeyStore
from coordinator.state.images import Page


class NewSecret(Body):
    """A secret to be registered with the image."""

    type: Type = "passphrase"
    payload_b64: Annotated[str, Hidden()] = Field(max_length=4 * MAX_BYTES)


class NewEncryption(Body):
    """How an image is encrypted. Either `key_id` or `secret`; `decrypt_size` is what it gives inside, in bytes."""

    format: Literal["LUKSv1", "LUKSv2"] = "LUKSv1"
    key_id: Uuid | None = None
    secret: NewSecret | None = None
    decrypt_size: Annotated[int, Field(gt=0, lt=1 << 62)]
    delete_key: bool = True


class NewImage(Body):
    name: Name | None = None
    disk_format: str
    container_format: str = "bare"
    visibility: str = "private"
    protected: bool = False
    min_disk: Annotated[int, Field(ge=0)] = 0
    min_ram: Annotated[int, Field(ge=0)] = 0
    tags: list[str] = Field(default_factory=list)
    encryption: NewEncryption | None = None
    properties: dict[str, str] = Field(default_factory=dict)


class ImagesPage(Answer):
    images: list[ImageAnswer]
    next_marker: str | None


def registered_images() -> Resource:
    """The resource table."""
    look, one = "brickyard:images:get", "/{image_id}"
    return Resource(
        name="registered images",
        about="Images with their encryption. Bytes are uploaded to the image's `file` below `/image`.",
        prefix="/brickyard/v1/images",
        routes=(
            post("", _create, "brickyard:images:create", "Register an image, with its secret.", body=NewImage,
                 body_key="image", answer=ImageAnswer, answer_key="image", status=201),
            get("", _list, look, "List the images one may use.", answer=ImagesPage),
            get(one, _show, look, "Show an image.", answer=ImageAnswer, answer_key="image"),
            delete(one, _delete, "brickyard:images:delete", "Delete an image and its bytes.", status=204),
        ),
    )  # fmt: skip


async def _create(call: Call) -> dict[str, Any]:
    wanted, store, caller = call.valid(NewImage), call.services.get(KeyStore), caller_of(call)
    fields = wanted.model_dump(exclude={"encryption", "properties"})
    user_id = call.context.user_id

    def run(conn: Any) -> Image:
        properties = dict(wanted.properties)
        if wanted.encryption is not None:
            key_id = _key(conn, wanted.encryption)
            properties |= _properties(wanted.encryption, key_id)
        return catalog.create(conn, caller, {**properties, **fields})

    def _key(conn: Any, encryption: NewEncryption) -> str:
        if (encryption.key_id is None) == (encryption.secret is None):
            raise ImageInvalid(reason="its encryption needs either key_id or secret")
        if encryption.secret is None:
            return str(encryption.key_id)
        value = decoded(encryption.secret.payload_b64)
        return store.create(
            conn, project_id=caller.project_id, user_id=user_id, type=encryption.secret.type, value=value,
            name=wanted.name,
        )  # fmt: skip

    return image_view(await call.services.db.write(run))


def _properties(encryption: NewEncryption, key_id: str) -> dict[str, str]:
    return {
        info.FORMAT: encryption.format,
        info.KEY_ID[0]: key_id,
        info.KEY_POLICY[0]: info.DELETE_WITH_IMAGE if encryption.delete_key else info.KEEP,
        info.DECRYPT_SIZE: str(encryption.decrypt_size),
    }


async def _list(call: Call) -> dict[str, Any]:
    page = page_of(call.query, call.services.settings.max_limit)
    filters = filters_of(call.query, None if call.context.is_admin else call.context.project_id)
    wider = Page(max(page.limit, 1) + 1, page.marker, page.sort)
    found = await call.services.db.read(lambda conn: catalog.listing(conn, filters, wider))
    shown = found[: wider.limit - 1]
    more = len(found) > len(shown)
    return {"images": [image_view(image) for image in shown], "next_marker": shown[-1].row.id if more else None}


async def _show(call: Call) -> dict[str, Any]:
    caller, image_id = caller_of(call), call.params["image_id"]
    return image_view(await call.services.db.read(lambda conn: catalog.show(conn, caller, image_id)))


async def _delete(call: Call) -> None:
    await delete_image(call, call.params["image_id"])
