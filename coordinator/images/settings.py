"""The `[images]` table of coordinator.toml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from agent.base.config import Section, trust

if TYPE_CHECKING:
    import ssl


class GlanceSettings(Section):
    """`[images.glance]`: the Glance that keeps the images."""

    url: str = Field(description="Address of the Glance, without `/v2`: `https://glance.example:9292`.")
    auth: Literal["keystone", "none"] = Field(
        "keystone",
        description="How it is called: with tokens of the Keystone of `[identity.keystone]` (that user needs the role "
        "`admin` to read and write images of all projects), or without any for a Glance that asks for none.",
    )
    ca_file: Path | None = Field(
        None, description="Certificates that vouch for an https address; default: the system's."
    )
    timeout_s: float = Field(20.0, gt=0, description="Seconds after which a Glance that does not answer is away.")
    direct_url_schemes: tuple[Literal["cinder"], ...] = Field(
        (),
        description="Locations of images that are used without asking Glance for the data: `cinder` clones raw images "
        "whose data are a volume of this site, in the same pool and of the image's owner.",
    )

    upload_clones: bool = Field(
        False,
        description="Whether a plain volume that is uploaded becomes an image by a clone of it, registered as a "
        "location in Glance's store of type `cinder`: no data are sent. Needs `direct_url_schemes` with `cinder`, and "
        "the role `service` or, for a Glance before 2024.2, its `show_multiple_locations`; where Glance refuses, the "
        "data are sent.",
    )
    upload_clones_internal: bool = Field(
        False,
        description="Whether those clones belong to `images.internal_project` and count to no quota, instead of to the "
        "project of the volume.",
    )

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/]+(/[^\s?#]*)?", value) or "@" in value:
            raise ValueError("is not an address like https://glance.example:9292")
        return value.rstrip("/").removesuffix("/v2")

    def tls(self) -> ssl.SSLContext | None:
        """The context for `ca_file`; None without it. Raises ConfigError for a file that can not be used."""
        return trust(self.ca_file, "[images.glance]")


class ImagesSection(Section):
    """`[images]`"""

    service: Literal["catalog", "glance"] = Field(
        "catalog",
        description="Who keeps the images that volumes are made of: the built-in catalog (served at `/image`), "
        "or a Glance.",
    )
    glance: GlanceSettings | None = Field(None, description="The Glance of service `glance`.")
    internal_project: str | None = Field(
        None,
        description="Id of the project that cached images belong to; nobody should log in to it. Unset: back ends "
        "cache nothing, whatever their `image_cache` says.",
    )
    internal_user: str = Field("brickyard", description="Id of the user that cached images are noted as made by.")
    verify_signatures: bool = Field(
        True,
        description="Whether images that carry `img_signature` properties are verified when volumes are made of them; "
        "one that fails never becomes a volume.",
    )
    validate_certificates: bool = Field(
        False,
        description="Whether the certificate of a signed image must follow from trusted ones even when its user names "
        "none: then from `trusted_certificates`.",
    )
    trusted_certificates: tuple[str, ...] = Field(
        (), description="Ids of certificates that this site trusts, in the key store or at the key manager."
    )

    compressed_uploads: bool = Field(
        False, description="Whether volumes can be uploaded in container format `compressed` (packed by gzip)."
    )
    property_protections: Path | None = Field(
        None,
        description="File that says who may change which image properties of volumes, as Glance's file of that "
        "name; unset: whoever may change the volume. A name that no section of it fits can not be changed.",
    )
    property_protections_by: Literal["roles", "policies"] = Field(
        "roles", description="What the lines of that file name: roles, or rules of the policy."
    )

    @model_validator(mode="after")
    def _has_glance(self) -> ImagesSection:
        if self.service == "glance" and self.glance is None:
            raise ValueError("service glance needs the table [images.glance] with url")
        if self.glance is not None and self.glance.upload_clones and not self.glance.direct_url_schemes:
            raise ValueError('glance.upload_clones needs glance.direct_url_schemes = ["cinder"]')
        if self.glance is not None and self.glance.upload_clones_internal and self.internal_project is None:
            raise ValueError("glance.upload_clones_internal needs internal_project")
        return self
