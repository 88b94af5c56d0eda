"""From nothing to the first volume, and the memory of an idle site: `benchmarks/startup.py [--quick]`.

Each round has fresh folders: keys, certificates and database are made, the agent is enrolled. The clock runs from the
start of the first process until a client that has logged in sees its volume available.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

import _calls as calls
import _common as common

START_S, DEV_MIB, UNITS_MIB = 1.5, 100.0, 160.0
_SETTLE_S = 2.0


async def first_volume(site: common.Site) -> tuple[float, float]:
    """Seconds until ready, and until the first volume was available; it is checked and deleted."""
    ready = time.monotonic() - site.started
    client = calls.Client(site.endpoint)
    await client.login(site.password)
    await calls.can_create(client)
    volume_id = await calls.create(client)
    await calls.available(client, volume_id)
    took = time.monotonic() - site.started
    await calls.checked_and_deleted(site, client, [volume_id])
    await client.close()
    return ready, took


def one(kind: str, options_dir: Path | None) -> tuple[float, float]:
    """One round: seconds to the first volume, MiB of all processes when it is idle again."""
    with common.folder(options_dir) as folder, (common.dev if kind == "dev" else common.units)(folder) as site:
        ready, took = asyncio.run(first_volume(site))
        time.sleep(_SETTLE_S)
        sizes = common.pss_mib(site.pids)
    shown = ", ".join(f"{name.partition(' ')[2]} {mib:.1f}" for name, mib in sizes.items())
    print(f"{kind}: ready {ready:.2f} s, first volume {took:.2f} s; PSS {sum(sizes.values()):.1f} MiB ({shown})")
    return took, sum(sizes.values())


def main() -> int:
    options = common.arguments(__doc__ or "")
    print(f"startup: {common.machine()}")
    rounds = 3 if options.quick else 7
    dev = [one("dev", options.dir) for _ in range(rounds)]
    units = [one("units", options.dir) for _ in range(1 if options.quick else 3)]
    took, dev_mib, units_mib = median(t for t, _ in dev), median(m for _, m in dev), median(m for _, m in units)
    return common.goals(
        "startup",
        [
            (f"first volume {took:.2f} s", took <= START_S),
            (f"dev {dev_mib:.0f} MiB", dev_mib <= DEV_MIB),
            (f"units {units_mib:.0f} MiB", units_mib <= UNITS_MIB),
        ],
        f"<= {START_S} s, <= {DEV_MIB:.0f} MiB, <= {UNITS_MIB:.0f} MiB",
    )


if __name__ == "__main__":
    sys.exit(main())
