"""An encrypted image becomes an encrypted volume: `benchmarks/transcode.py [--quick]`.

A qcow2 encrypted with LUKS, half of it allocated, to raw LUKS with another key: the agent's own stream against
`qemu-img convert` as Cinder calls it, in turns, from a cold source to a synced destination. The key is a random one of
32 bytes. Once with the image's slot as qemu makes it, once with few iterations, so that the data alone is compared.
Each result is compared with the source by `qemu-img compare`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import _common as common
import _disk as disk

GIB = 1 << 30
KEY, VOLUME_KEY = bytes(range(32)), bytes(range(100, 132))
PEAK_MIB = 256.0
OTHERS = ("aes-cbc-essiv:sha256", "camellia-xts-plain64", "serpent-xts-plain64", "twofish-xts-plain64")


class Images:
    """The image, the places of both results, and how qemu names them."""

    def __init__(self, folder: Path, size: int, slot: list[str]) -> None:
        self.size = size
        self.image, self.theirs, self.ours = folder / "image.qcow2", folder / "theirs", folder / "ours"
        self.keys = {"s1": folder / "image.key", "s2": folder / "volume.key"}
        for path, key in zip(self.keys.values(), (KEY, VOLUME_KEY), strict=True):
            path.write_text(key.hex())
        clear = folder / "clear"
        disk.lay(clear, size, 0.5)
        options = ",".join(["encrypt.format=luks", "encrypt.key-secret=s1", *slot])
        disk.tool(["qemu-img", "create", "-q", "-f", "qcow2", *self.secrets, "-o", options, self.image, str(size)])
        disk.tool(["qemu-img", "convert", "-n", *self.secrets, "--image-opts", f"driver=raw,file.filename={clear}",
                   "--target-image-opts", self.source])  # fmt: skip
        clear.unlink()

    @property
    def secrets(self) -> list[str]:
        return [word for name, path in self.keys.items() for word in ("--object", f"secret,id={name},file={path}")]

    @property
    def source(self) -> str:
        return f"driver=qcow2,file.filename={self.image},encrypt.format=luks,encrypt.key-secret=s1"

    def by_qemu(self) -> disk.Cost:
        disk.remove(self.theirs)
        disk.cold(self.image)
        made = disk.tool(["qemu-img", "convert", *self.secrets, "--image-opts", self.source, "-O", "luks",
                          "-o", "key-secret=s2", self.theirs])  # fmt: skip
        synced = disk.tool(["sync", self.theirs])
        return disk.Cost(made.wall + synced.wall, made.cpu + synced.cpu, made.written + synced.written, made.peak_mib)

    def by_agent(self, **given: Any) -> disk.Cost:
        disk.remove(self.ours)
        self.ours.touch()
        disk.cold(self.image)
        return disk.Cost(**disk.child(__file__, "convert", image=self.image, volume=self.ours, size=self.size, **given))

    def check(self, made: Path) -> None:
        volume = f"driver=luks,file.filename={made},key-secret=s2"
        disk.tool(["qemu-img", "compare", *self.secrets, "--image-opts", self.source, volume])


def convert(given: dict[str, Any]) -> dict[str, Any]:
    """In a child: what the agent's job does from the open image to the synced volume, its checkpoints in a journal."""
    import agent.luks.xts  # noqa: F401  loaded once by a service
    from agent.images.conversion import Watch
    from agent.images.inspect import Declared
    from agent.images.resume import Resume
    from agent.images.volume import Means, OpenedImage, Target, image_to_volume
    from agent.jobs import records
    from agent.jobs.journal import Journal
    from agent.luks.model import Format, Secret
    from agent.luks.native import native
    from agent.wire.jobs import VolumeCreate, request_for

    native()
    volume = Path(given["volume"])
    job = VolumeCreate(backend="files", volume_id=str(uuid.uuid4()), size_bytes=given["size"])
    record = records.fresh(request_for("transcode/make/1", 1, job), 0, "")
    journal, saved = Journal(volume.with_suffix(".journal")), 0
    fd = os.open(given["image"], os.O_RDONLY)
    image = OpenedImage(fd, Declared("qcow2", "bare", True), Secret("symmetric", KEY))
    # The same passphrase by either kind: the one is random and needs no stretching, the other might be a person's.
    secret = Secret("passphrase", VOLUME_KEY.hex().encode()) if given["stretched"] else Secret("symmetric", VOLUME_KEY)
    target = Target(volume, given["size"], Format(key_size=given["key_size"]), secret)

    async def noted(file: str, done: int) -> None:
        nonlocal saved
        saved += 1
        checkpoint = {"file": file, "copied": done}
        await journal.write(partial(records.note_checkpoint, key=record.key, checkpoint=checkpoint))

    async def work() -> dict[str, Any]:
        await journal.open()
        await journal.write(partial(records.accept, record=record))
        watch = Watch(lambda progress: None, asyncio.Event())
        cost = await disk.measured_here(image_to_volume(image, target, Means(), watch, Resume(noted)))
        await journal.close()
        disk.remove(*volume.parent.glob(f"{journal.path.name}*"))
        if not saved:
            raise RuntimeError("no checkpoint was saved")
        return cost

    return asyncio.run(work())


def stream(given: dict[str, Any]) -> dict[str, Any]:
    """In a child: sectors decrypted and encrypted in memory, with so many threads; GiB a second."""
    import threading
    import time

    from agent.base.ciphers import usual_key_size
    from agent.luks.sectors import sectors

    cipher = given.get("cipher", "aes-xts-plain64")
    left, right = (sectors(cipher, os.urandom(usual_key_size(cipher) // 8)) for _ in range(2))

    def work() -> None:
        view = memoryview(bytearray(2 << 20))
        for at in range(given["rounds"]):
            left.decrypt(view, at * 4096)
            right.encrypt(view, at * 4096)

    work()
    threads = [threading.Thread(target=work) for _ in range(given["threads"])]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - begun
    return {"rate": given["threads"] * given["rounds"] * (2 << 20) / took / GIB}


def compare(images: Images, rounds: int, name: str) -> tuple[float, float, float]:
    """Times on the clock, times of CPU, peak of memory."""
    theirs, ours, stretched = [], [], []
    for number in range(rounds):
        theirs.append(images.by_qemu())
        stretched.append(images.by_agent(key_size=512, stretched=True))
        ours.append(images.by_agent(key_size=512, stretched=False))
        if number == 0:
            images.check(images.ours)
            images.check(images.theirs)
    disk.told(f"{name}, qemu-img convert", theirs)
    disk.told(f"{name}, agent", ours)
    disk.told(f"{name}, agent, a passphrase stretched as the image's", stretched)
    disk.remove(images.theirs, images.ours, images.image)
    return disk.ratio(theirs, ours, "wall"), disk.ratio(theirs, ours, "cpu"), max(cost.peak_mib for cost in ours)


def main() -> int:
    if sys.argv[1:2] == ["child"]:
        task = {"convert": convert, "stream": stream}[sys.argv[2]]
        print(json.dumps(task(json.loads(sys.argv[3]))))
        return 0
    options = common.arguments(__doc__ or "")
    print(f"transcode: {common.machine()}")
    size, rounds = (GIB // 2, 1) if options.quick else (2 * GIB, 5)
    with common.folder(options.dir) as folder:
        whole = compare(Images(folder, size, []), rounds, "image as qemu makes it")
        data = compare(Images(folder, size, ["encrypt.iter-time=10"]), rounds, "few iterations")
    turns = [[disk.child(__file__, "stream", threads=count, rounds=100)["rate"] for count in (1, 2)]
             for _ in range(rounds)]  # fmt: skip
    rates = [median(each) for each in zip(*turns, strict=True)]
    print(f"in memory, decrypt and encrypt: {rates[0]:.2f} GiB/s with one thread, {rates[1]:.2f} with two")
    for cipher in OTHERS:
        rate = disk.child(__file__, "stream", threads=1, rounds=10, cipher=cipher)["rate"]
        print(f"  {cipher}: {rate * 1024:.0f} MiB/s with one thread")
    wall, cpu = goal()
    print(f"few iterations: {data[0]:.1f}x wall, {data[1]:.1f}x CPU; goal >= 3x wall")
    return common.goals(
        "transcode",
        [
            (f"{whole[0]:.1f}x wall", whole[0] >= wall),
            (f"{whole[1]:.1f}x CPU", whole[1] >= cpu),
            (f"few iterations {data[0]:.1f}x wall", data[0] >= 3.0),
            *disk.scales("two threads", rates[1] / rates[0]),
            (f"peak {max(whole[2], data[2]):.0f} MiB", max(whole[2], data[2]) <= PEAK_MIB),
        ],
        f">= {wall}x, >= {cpu}x, >= 3x, >= {disk.SCALES}x (two cores free), <= {PEAK_MIB:.0f} MiB",
    )


def goal() -> tuple[float, float]:
    """Times on the clock and of CPU, with and without the compiled part."""
    from agent.luks.native import native

    library = native()
    return (4.0, 5.0) if library is not None and library.serves_xts(64) else (2.5, 3.0)


if __name__ == "__main__":
    sys.exit(main())
