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


class ImageDeactivated(Permanent):
    code = "images.deactivated"
    status = 403
    exit_code = 3
    sentence = "Image {id} is deactivated: its data can not be read for now."
    hint = "Its owner or an administrator makes it usable again: openstack image set --activate {id}."


class ImageHasNoData(Permanent):
    code = "images.not-in-use"
    status = 403
    exit_code = 5
    sentence = (
        "Image {id} has status {status}; only an active image can be deactivated, and a deactivated one activated."
    )


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


class SignatureIncomplete(Permanent):
    code = "images.signature-incomplete"
    sentence = "Signature metadata is incomplete for image {id}: {missing} not set."
    hint = "Set all four img_signature properties of the image, or none."


class SignatureMissing(Permanent):
    code = "images.signature-missing"
    sentence = "Image {id} is not signed, but trusted certificates were named for it."
    hint = "Use a signed image, or leave out trusted_image_certificates."


class CertificateUnusable(Permanent):
    code = "images.certificate-unusable"
    sentence = "Certificate {id}, which image {image} is signed with, can not be used: {reason}."
    hint = "Register it as a secret of type certificate in the image's project or yours; renew it when it ran out."


class CertificateNotTrusted(Permanent):
    code = "images.certificate-not-trusted"
    sentence = "The certificate that image {image} is signed with is not trusted: {reason}."
    hint = "Name its issuers, up to the root, in trusted_image_certificates; they must exist and be within their dates."


class CertificateAway(Temporary):
    code = "images.certificates-away"
    retry_after = 5.0
    sentence = "The key manager at {url} can not be asked for certificates and keys of images: {reason}."
    hint = "Try again; an administrator looks whether the Barbican of [keys.barbican] answers there."


class SignaturesOff(Permanent):
    code = "images.signatures-off"
    sentence = "Invalid input received: trusted certificates were named, but this site does not verify signatures."
    hint = "Leave out trusted_image_certificates, or have images.verify_signatures switched on."


class SignatureNotVerified(Permanent):
    code = "images.signature-not-verified"
    status = 500
    sentence = "Host {host} did not verify the signature of image {id}; it runs an older release."
    hint = "Upgrade the agent of that host."


class FormatNotSent(Permanent):
    code = "images.format-not-sent"
    status = 500
    sentence = "Host {host} did not send the volume as {format}; it runs an older release."
    hint = "Upgrade the agent of that host, or upload the volume as raw."


class PropertyProtected(Permanent):
    code = "images.property-protected"
    status = 403
    exit_code = 3
    sentence = "Image property {name} is protected: you may not {operation} it."
    hint = "The operator's file of property protections says who may."
