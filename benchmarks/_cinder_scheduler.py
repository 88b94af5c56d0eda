"""Run by Cinder's own Python: place the requests of a JSON file by its FilterScheduler; prints placements a second."""

# mypy: ignore-errors
import json
import sys
import time

from oslo_config import cfg

CONF = cfg.CONF


def main() -> None:
    with open(sys.argv[1]) as file:
        given = json.load(file)
    from cinder import context, objects

    objects.register_all()  # the modules below need it at their import
    from cinder.scheduler import filter_scheduler, host_manager, scheduler_options
    from oslo_utils import timeutils

    CONF([], project="cinder", default_config_files=[])
    # The pools come from the file: what reading them from a database costs Cinder is left out, to its advantage.
    host_manager.HostManager._update_backend_state_map = lambda _self, _context: None
    # Made without its constructor, which would connect to message bus and database.
    scheduler = filter_scheduler.FilterScheduler.__new__(filter_scheduler.FilterScheduler)
    scheduler.host_manager = manager = host_manager.HostManager()
    scheduler.options = scheduler_options.SchedulerOptions()
    scheduler.max_attempts = 3
    states = {}
    for pool in given["pools"]:
        host = f"{pool['host']}-{pool['zone']}@b"
        name = f"{host}#{pool['pool']}"
        service = {
            "host": host,
            "cluster_name": None,
            "availability_zone": pool["zone"],
            "disabled": False,
            "updated_at": timeutils.utcnow(),
        }
        state = host_manager.PoolState(host, None, {}, pool["pool"])
        state.service = service
        state.update_from_volume_capability(
            {
                "pool_name": pool["pool"],
                "timestamp": timeutils.utcnow(),
                "total_capacity_gb": pool["total"],
                "free_capacity_gb": pool["free"],
                "allocated_capacity_gb": pool["total"] - pool["free"],
                "provisioned_capacity_gb": pool["total"] - pool["free"],
                "max_over_subscription_ratio": "20.0",
                "reserved_percentage": 0,
                "thin_provisioning_support": True,
                "thick_provisioning_support": False,
                "media": pool["media"],
                "tier": pool["tier"],
                "volume_backend_name": "b",
            },
            service,
        )
        state.capabilities = {"media": pool["media"], "tier": pool["tier"], "thin_provisioning_support": True}
        states[name] = state
    manager.get_all_backend_states = lambda _context: states.values()
    ctx = context.get_admin_context()
    begun = time.process_time()
    for number, one in enumerate(given["requests"]):
        spec = {
            "volume_properties": {"size": one["size"], "availability_zone": one["zone"]},
            "resource_properties": {"size": one["size"], "availability_zone": one["zone"]},
            "volume_type": {"id": None, "name": "t", "extra_specs": one["specs"]},
            "resource_type": {"id": None, "name": "t", "extra_specs": one["specs"]},
            "volume_id": str(number),
        }
        if scheduler._schedule(ctx, spec, {}) is None:
            raise SystemExit("nothing was placed")
    took = time.process_time() - begun
    print(len(given["requests"]) / took)


if __name__ == "__main__":
    main()
