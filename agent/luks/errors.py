"""What can be wrong with a LUKS header, a key, or a conversion. Sentences name the rule, never the content."""

from __future__ import annotations

from agent.base.errors import Invalid, Permanent

_REMAKE = "Make the image anew with a plain LUKS header (aes-xts-plain64) and register it again."


class HeaderRefused(Permanent):
    """A LUKS header breaks a rule; the subclasses name which."""

    code = "image.luks-header"
    sentence = "The LUKS header was refused: {reason}."
    hint = _REMAKE


class Truncated(HeaderRefused):
    code = "image.truncated"
    sentence = "The image ends before its own header says it does."
    hint = "Upload the image again and compare its size and checksum with the source."


class NotLuks(HeaderRefused):
    code = "image.luks-missing"
    sentence = "The image is declared as a LUKS container but does not begin with a LUKS header."
    hint = "Register the image without encryption, or upload the encrypted file."


class LuksVersion(HeaderRefused):
    code = "image.luks-version"
    sentence = "LUKS version {version} can not be converted to a volume."
    hint = "Convert the image to LUKS1 (cryptsetup convert --type luks1, or qemu-img convert -O luks)."


class DetachedHeader(HeaderRefused):
    code = "image.luks-detached"
    sentence = "The LUKS header points to data outside of the image (detached header)."


class NullCipher(HeaderRefused):
    code = "image.luks-null-cipher"
    sentence = "The LUKS header names the null cipher, which does not encrypt."


class CipherRefused(HeaderRefused):
    code = "image.luks-cipher"
    sentence = (
        "The LUKS header names a cipher, key size or hash that is not known, or that the libraries here lack "
        "(known are xts, cbc, ctr and ecb of aes, serpent, twofish, camellia, sm4, and cbc and ecb of cast5)."
    )
    hint = (
        "Where it opens, encrypt it anew: cryptsetup reencrypt --cipher aes-xts-plain64, or qemu-img convert -O luks; "
        "a damaged header comes back from its backup."
    )


class KdfLimit(HeaderRefused):
    code = "image.luks-kdf-limit"
    sentence = "Opening the LUKS header would cost more time or memory than allowed."
    hint = (
        "Re-make the key slot with fewer iterations or less memory (cryptsetup luksChangeKey --pbkdf-force-iterations)."
    )


class KeyArea(HeaderRefused):
    code = "image.luks-key-area"
    sentence = "A key slot of the LUKS header lies outside of the key area or has impossible sizes."


class MetadataSize(HeaderRefused):
    code = "image.luks-metadata"
    sentence = "The LUKS2 metadata is malformed, damaged or larger than allowed."


class Requirements(HeaderRefused):
    code = "image.luks-requirements"
    sentence = "The LUKS2 header requires features that are not supported here."


class Tokens(HeaderRefused):
    code = "image.luks-token"
    sentence = "The LUKS2 header refers to an external token handler."
    hint = "Remove the tokens (cryptsetup token remove) and register the image again."


class DataSegment(HeaderRefused):
    code = "image.luks-segment"
    sentence = "The data segment of the LUKS header is not one plain segment inside of the image."


class Integrity(HeaderRefused):
    code = "image.luks-integrity"
    sentence = "The LUKS2 header asks for integrity or hardware (OPAL) encryption."


class WrongSecret(Permanent):
    code = "luks.wrong-secret"
    sentence = "The secret does not open the LUKS header of {what}."
    hint = "Check the key id and its type: 'passphrase' is used as it is, every other type is hex-encoded first."


class BadSecret(Invalid):
    code = "luks.bad-secret"
    sentence = "The secret can not be used as a LUKS key: {reason}."
    hint = "Store a passphrase as UTF-8 text, or a symmetric key of 32 bytes."


class NoFreeSlot(Permanent):
    code = "luks.no-free-slot"
    status = 409
    sentence = "The LUKS header has no free key slot."
    hint = "Remove a key that is not needed any more."


class LastSlot(Permanent):
    code = "luks.last-slot"
    status = 409
    sentence = "The secret opens the only key slot of the LUKS header; without it nothing would open the volume."
    hint = "Add another key first, or delete the volume."


class ForeignHeader(Permanent):
    code = "luks.foreign-header"
    status = 409
    sentence = "The header to be put back is of another volume: {reason}."
    hint = "Look at both with `brickyard-agent luks show`; with --force the header that is there is lost."


class VolumeHeld(Permanent):
    code = "luks.volume-held"
    status = 409
    sentence = "{place} can not be changed now: {reason}."
    hint = "Detach the volume first; devices of this host need root."


class TargetInUse(Permanent):
    code = "luks.target-not-empty"
    status = 409
    sentence = "A LUKS header is only written to an empty regular file made for it; this one is not."
    hint = "Discard the half-made volume and create it again."


class FormatRefused(Invalid):
    code = "luks.format-unsupported"
    sentence = "This encryption can not be made: {reason}."
    hint = "Use a volume type with provider luks or luks2; aes-xts-plain64 with a key size of 512 is the usual one."
