"""The names of disk ciphers, as cryptsetup, qemu and volume types write them, and the keys that go with them.

`aes-cbc-essiv:sha256` is an algorithm, a mode, and how the IV of a sector is made.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT = "aes-xts-plain64"
# Bytes of a block, bytes of its keys.
_ALGORITHMS: dict[str, tuple[int, tuple[int, ...]]] = {
    **dict.fromkeys(("aes", "serpent", "twofish", "camellia"), (16, (16, 24, 32))),
    "sm4": (16, (16,)),
    "cast5": (8, (16,)),
}
_IVS = ("plain", "plain64", "plain64be", "benbi", "null")
# Of the hashes of ESSIV only those whose result is a key.
_DIGESTS = {"md5": 16, "sha256": 32, "sha3-256": 32, "blake2s-256": 32, "sm3": 32}
_STRIPES = 4000


@dataclass(frozen=True, slots=True)
class Spec:
    """`mode` is xts, cbc, ctr or ecb; `iv` is plain, plain64, plain64be, benbi, null, or essiv with its `hash`."""

    algorithm: str
    mode: str
    iv: str
    hash: str = ""

    @property
    def block(self) -> int:
        """Bytes of a block."""
        return _ALGORITHMS[self.algorithm][0]

    @property
    def key_sizes(self) -> tuple[int, ...]:
        """Bytes that a key may have, both halves of an XTS key counted."""
        times = 2 if self.mode == "xts" else 1
        return tuple(size * times for size in _ALGORITHMS[self.algorithm][1])


def parse(text: str) -> Spec | None:
    """What `aes-xts-plain64` and its kin mean; None for what nobody here can decrypt."""
    algorithm, _, rest = text.partition("-")
    mode, _, told = rest.partition("-")
    iv, _, name = told.partition(":")
    if algorithm not in _ALGORITHMS or mode not in ("xts", "cbc", "ctr", "ecb"):
        return None
    block, keys = _ALGORITHMS[algorithm]
    if mode == "ecb" and not told:
        return Spec(algorithm, mode, "null")
    if block != 16 and mode in ("xts", "ctr"):
        return None
    if iv == "essiv":
        return Spec(algorithm, mode, iv, name) if _DIGESTS.get(name) in keys else None
    return Spec(algorithm, mode, iv) if iv in _IVS and ":" not in told else None


def refusal(text: str, key_size: int, *, version: int) -> str | None:
    """Why no new volume is encrypted so (`key_size` in bits, `version` of LUKS); None when it can be.

    What is read of others' volumes and images is more: some of it would not protect, or crash who opens it.
    """
    spec = parse(text)
    if spec is None:
        return f"the cipher {text} is not known"
    if spec.mode in ("ecb", "ctr") or spec.iv == "null":
        return f"{text} shows which parts of a disk are equal"
    if key_size % 8 or key_size // 8 not in spec.key_sizes:
        known = ", ".join(str(size * 8) for size in spec.key_sizes)
        return f"{text} has no keys of {key_size} bits (it has {known})"
    if version == 1 and key_size // 8 * _STRIPES % 512:
        return f"qemu can not open LUKS1 with a key of {key_size} bits"
    return None


def usual_key_size(text: str) -> int:
    """Bits of the key where none are told: the longest that there is."""
    spec = parse(text)
    return 512 if spec is None else max(spec.key_sizes) * 8
