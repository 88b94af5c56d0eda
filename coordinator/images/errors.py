"""What can go wrong with the catalog of images."""

from __future__ import annotations

from agent.base.errors import Conflict, Invalid, NotFound, Permanent, Temporary


class NoSuchImage(NotFound):
    code = "images.not-found"
    sentence = "Image {id} could not be found."
    hint = "List the images you may use with: openstack image list."


class NoSuchTag(NotFound):
    code = "images.no-such-tag"
    sentence = "The image has no tag {id}."


class ImageInvalid(Invalid):
    code = "images.invalid"
    sentence = "The image is not acceptable: {reason}."


class ImageProtected(Permanent):
    code = "images.protected"
    status = 403
    exit_code = 5
    sentence = "Image {id} is protected and can not be deleted."
    hint = "Take the protection away first: openstack image set --unprotected {id}."


class ImageNotYours(Permanent):
    code = "images.not-yours"
    status = 403
    exit_code = 3
    sentence = "Image {id} belongs to another project; you may use it, but not change it."


class PublicNeedsAdmin(Permanent):
    code = "images.public-needs-admin"
    status = 403
    exit_code = 3
    sentence = "Only an administrator can make an image public."
    hint = "Use visibility private or community."


class NoImageData(Conflict):
    code = "images.no-data"
    status = 409
    sentence = "Image {id} has status {status}; it holds no data to read."
    hint = "Upload its data first: openstack image create --file, or PUT its file."


class ImageKeyUnusable(Permanent):
    """The secret of an encrypted image is missing, or is not one that its owner or the caller may use."""

    code = "images.key-unusable"
    status = 400
    sentence = "Invalid image: the secret of encrypted image {id} can not be used: {reason}."
    hint = "Register the secret (brickyard key register) and name it in the image's property os_encrypt_key_id."


class NoImageStore(Temporary):
    code = "images.no-store"
    retry_after = 5.0
    sentence = "No host that keeps images can be reached."
    hint = (
        "Let an agent keep images (images.store in its configuration) or bring its host back; see: brickyard host list."
    )


class GlanceAway(Temporary):
    code = "images.glance-away"
    retry_after = 5.0
    sentence = "The image service can not be asked: {reason}."
    hint = "Try again; an administrator looks whether the Glance of [images.glance] answers there."


class GlanceRefuses(Permanent):
    """Their answer is the caller's: a quota, a policy, a value that it does not take."""

    code = "images.glance-refuses"
    sentence = "The image service refuses: {reason}."
    hint = "It is the image service's own rule; ask its administrator."


class NoSuchStore(Invalid):
    code = "images.no-such-store"
    sentence = "The image service has no store {store} that can be written to{known}."
    hint = "List its stores with: openstack image stores list."
