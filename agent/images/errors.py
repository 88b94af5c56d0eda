"""Why an image was refused. Each rule has its own stable code; a sentence names the rule, never the content."""

from __future__ import annotations

from agent.base.errors import Conflict, NotFound, Permanent, Temporary


class ImageRefused(Permanent):
    """An image breaks a rule; the subclasses name which."""

    code = "image.refused"
    sentence = "The image was refused: {reason}."
    hint = "Make the image anew as one plain file (qemu-img convert -O qcow2 or -O raw) and upload it again."


class FormatUnsupported(ImageRefused):
    code = "image.format-unsupported"
    sentence = "Images of disk format {disk_format} in container format {container_format} are not supported."
    hint = "Convert the image to qcow2 or raw (container format bare, or luks for a raw LUKS container)."


class FormatMismatch(ImageRefused):
    code = "image.format-mismatch"
    sentence = "The image is declared as {declared} but carries the signature of {found}."
    hint = "Register the image with the format that it really has, or convert it first."


class Polyglot(ImageRefused):
    code = "image.polyglot"
    sentence = "The image carries the signatures of more than one format."


class NestedFormat(ImageRefused):
    code = "image.nested-format"
    sentence = "The content inside of the {outer} image is itself an image of format {found}."
    hint = "Convert the inner image and register that one."


class UndeclaredEncryption(ImageRefused):
    code = "image.undeclared-encryption"
    sentence = "The image is encrypted but was registered without os_encrypt properties."
    hint = "Register the image with os_encrypt_format, os_encrypt_key_id and os_decrypt_size."


class NotEncrypted(ImageRefused):
    code = "image.not-encrypted"
    sentence = "The image was registered as encrypted but is not."
    hint = "Remove the os_encrypt properties, or upload the encrypted file."


class NeedsEncryptedType(ImageRefused):
    code = "image.needs-encrypted-type"
    sentence = "The image is encrypted, but the volume's type is not."
    hint = "Choose a volume type with encryption (provider luks)."


class SecretMissing(ImageRefused):
    code = "image.secret-missing"
    sentence = "The secret of the {what} was not given."
    hint = "Check that the key id exists in the key manager and that you may read it."


class BackingFile(ImageRefused):
    code = "image.backing-file"
    sentence = "The image refers to a backing file; an image must be one file."
    hint = "Flatten it first: qemu-img convert -O qcow2 (or qemu-img rebase -b '')."


class DataFile(ImageRefused):
    code = "image.data-file"
    sentence = "The image keeps its data in an external file; an image must be one file."
    hint = "Flatten it first: qemu-img convert -O qcow2."


class UnknownFeature(ImageRefused):
    code = "image.unknown-feature"
    sentence = "The image requires a feature that is not known here."
    hint = "Convert it with the tool that made it, without newer features (qemu-img convert -O qcow2 -o compat=1.1)."


class UnsupportedVersion(ImageRefused):
    code = "image.version"
    sentence = "The image has a version of its format other than those supported (qcow2: 2 and 3)."


class LegacyEncryption(ImageRefused):
    code = "image.legacy-encryption"
    sentence = "The image uses the old AES encryption of qcow2, which is not safe."
    hint = "Convert it to LUKS: qemu-img convert -O qcow2 -o encrypt.format=luks,encrypt.key-secret=…"


class InternalSnapshots(ImageRefused):
    code = "image.internal-snapshots"
    sentence = "The image holds internal snapshots, whose content would be lost."
    hint = "Delete them (qemu-img snapshot -d) or convert the one you mean."


class Bitmaps(ImageRefused):
    code = "image.bitmaps"
    sentence = "The image holds persistent bitmaps, which have no meaning outside of the machine that made them."
    hint = "Remove them: qemu-img bitmap --remove, or qemu-img convert -O qcow2."


class Corrupt(ImageRefused):
    code = "image.corrupt"
    sentence = "The image is marked as corrupt by the tool that wrote it."
    hint = "Repair it where it was made (qemu-img check -r all) and upload it again."


class Malformed(ImageRefused):
    code = "image.malformed"
    sentence = "The image's header is impossible: {rule}."


class Compression(ImageRefused):
    code = "image.compression"
    sentence = "The image is compressed in a way that is not supported (only deflate is)."
    hint = "Convert it without compression: qemu-img convert -O qcow2."


class NotCompressed(ImageRefused):
    code = "image.not-compressed"
    sentence = "The image is registered as compressed, but is not, or not wholly, what gzip makes."
    hint = "Pack it with gzip, or register it with container format bare."


class ImageSize(ImageRefused):
    code = "image.size"
    sentence = "The image unpacks to {virtual} bytes, more than the {limit} bytes allowed for it."
    hint = "Make the volume at least {gib} GiB, or raise images.max_virtual_bytes."


class ImageEmpty(ImageRefused):
    code = "image.empty"
    sentence = "The image holds no bytes."
    hint = "Upload the image's data first."


class ChecksumDiffers(ImageRefused):
    code = "image.checksum"
    sentence = "The bytes of the image do not have the {algorithm} checksum that was recorded for it."
    hint = "Upload the image again; if that repeats, look for a failing disk or memory on its way."


class SignatureUnusable(ImageRefused):
    code = "image.signature-unusable"
    sentence = "The image's signature can not be verified: {rule}."
    hint = "Sign the image anew and set its four img_signature properties; see the guide on signed images."


class SignatureDiffers(ImageRefused):
    code = "image.signature"
    sentence = "The image's signature does not fit its bytes: they are not the ones that were signed."
    hint = "Do not use the image; ask its owner to sign and upload it anew."


class ImageNotFound(NotFound):
    code = "image.not-found"
    sentence = "Image {id} is not kept on this host."
    hint = "Upload it, or name the host that keeps it."


class ImageDiffers(Conflict):
    code = "image.exists"
    sentence = "Image {id} is already kept with other content."
    hint = "Delete it first, or register the new bytes as a new image."


class SpoolFull(Temporary):
    code = "spool.full"
    status = 507
    retry_after = 30.0
    sentence = "The spool has {free} bytes left, but {wanted} are needed."
    hint = "Wait for running conversions, raise images.spool_max_bytes, or give the spool a larger file system."


class MemorySpoolLimit(Permanent):
    code = "spool.memory-limit"
    status = 413
    sentence = "Clear data of {wanted} bytes would have to be held in memory, more than the {limit} bytes allowed."
    hint = "Encrypt the image itself (qcow2 with LUKS), or raise images.memory_spool_bytes."
