"""Who works with whom: built once, started in order, stopped in reverse."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web
from sqlalchemy import Connection

from agent.base.errors import BrickyardError
from agent.base.ids import new_id
from agent.base.log import get_logger
from agent.base.release import RELEASE
from agent.base.reload import changes
from agent.wire.tls import TlsIdentity
from coordinator.api.app import SERVICES, make_app
from coordinator.api.dispatch import Crash, Hooks
from coordinator.api.project_tree import ProjectTree
from coordinator.api.resource_filters import ResourceFilters
from coordinator.api.resources import all_resources
from coordinator.api.route import Resource
from coordinator.api.services import Services
from coordinator.compute.base import Compute
from coordinator.enrolment.listener import EnrolmentListener
from coordinator.enrolment.own import own_identity
from coordinator.enrolment.renewal import Renewal
from coordinator.enrolment.service import Enrolment
from coordinator.fleet.directory import Directory
from coordinator.fleet.membership import Membership
from coordinator.fleet.poller import Poller
from coordinator.fleet.reconciler import Reconciler
from coordinator.identity.local import LocalIdentity
from coordinator.identity.policy import Policy
from coordinator.identity.strategies import authenticator
from coordinator.images.client import ImageClient
from coordinator.images.protections import Protections
from coordinator.images.settings import ImagesSection
from coordinator.keys.depository import Depository, Manager
from coordinator.keys.store import KeyStore
from coordinator.operations.cache_keeper import CacheKeeper
from coordinator.operations.completions import Completions
from coordinator.operations.compute_service import ComputeService
from coordinator.operations.engine import Engine
from coordinator.operations.homecoming import Homecoming
from coordinator.operations.image_streams import ImageStreams
from coordinator.operations.registry import workflows
from coordinator.operations.signatures import Signatures
from coordinator.scheduler.placement import Scheduler
from coordinator.server.errors import PortTaken
from coordinator.server.housekeeping import Housekeeper
from coordinator.server.images import ImageParts, image_parts
from coordinator.server.roots import SharedTokenKeys
from coordinator.server.settings import CoordinatorSettings
from coordinator.server.start import Opened
from coordinator.state import issues
from coordinator.state.issues import Issue

if TYPE_CHECKING:
    from coordinator.notifications.delivery import Delivery
    from coordinator.notifications.event import Sink
    from coordinator.operations.registered_images import RegisteredImages
    from coordinator.server.capacity import Capacity

log = get_logger(__name__)
_IMAGES = web.AppKey("images", ImageParts)


@dataclass(slots=True)
class Coordinator:
    """One running coordinator. `await start()`, then `port` and `enrolment_port` tell where; `await stop()`."""

    settings: CoordinatorSettings
    opened: Opened
    tls: TlsIdentity
    enrolment: Enrolment
    listener: EnrolmentListener
    directory: Directory
    membership: Membership
    poller: Poller
    engine: Engine
    identity: LocalIdentity
    app: web.Application
    compute: Compute | None = None
    beside: Sequence[Delivery | Capacity | RegisteredImages] = ()
    depository: Depository | None = None
    keeper: CacheKeeper | None = None
    port: int = 0
    background: set[asyncio.Task[None]] = field(default_factory=set)
    housekeeper: Housekeeper | None = None
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen, take over what a former life left, then watch the hosts."""
        section = self.settings.coordinator
        bound = _bound(section.listen, section.port)
        await self._enrolment_port()
        await self.membership.begin()
        await self.poller.begin()
        await self.engine.begin()
        self.background.add(asyncio.create_task(self._housekeeper().run()))
        self.background |= {asyncio.create_task(one.run()) for one in self.beside}
        homecoming = Homecoming(self.opened.db, self.engine, self.directory, self.membership.mine)
        self.background.add(asyncio.create_task(homecoming.run()))
        if self.depository is not None:
            self.background.add(asyncio.create_task(self.depository.run()))
        if self.keeper is not None:
            self.background.add(asyncio.create_task(self.keeper.run()))
        section = self.settings.coordinator
        self._runner = web.AppRunner(
            self.app, access_log=None, handle_signals=False, shutdown_timeout=section.stop_grace_s
        )
        await self._runner.setup()
        tls = self.settings.api.tls
        site = web.SockSite(self._runner, bound, backlog=256, ssl_context=tls.context() if tls else None)
        await site.start()
        self.port = self._runner.addresses[0][1]

    def _housekeeper(self) -> Housekeeper:
        tokens = self.opened.tokens
        refresh = tokens.refresh if isinstance(tokens, SharedTokenKeys) else None
        receivers = self.settings.notifications.receivers
        self.housekeeper = Housekeeper(self.opened.db, self.settings.housekeeping, refresh=refresh, receivers=receivers)
        return self.housekeeper

    async def _enrolment_port(self) -> None:
        section = self.settings.enrolment
        try:
            await self.listener.start()
        except OSError as error:
            raise PortTaken(
                purpose="enrolment", address=section.listen, port=section.port, key="enrolment.port",
                reason=error.strerror or str(error),
            ) from error  # fmt: skip

    async def reload(self, reread: Callable[[], Awaitable[CoordinatorSettings]]) -> None:
        """Take over what may change while it runs; a configuration with a mistake changes nothing and is an issue."""
        about = ("config.refused", "coordinator", socket.gethostname()[:64])
        log.info("configuration is read again")
        try:
            new = await reread()
            file, services = new.identity.policy_file, self.app[SERVICES]
            policy: Policy | None = None
            if file is not None and file == self.settings.identity.policy_file:
                policy = await asyncio.to_thread(Policy.from_file, file)
            if new.scheduler != self.settings.scheduler:
                services.get(Scheduler).follow(new.scheduler)
            if policy is not None:
                services.policy.take_over(policy)
        except BrickyardError as error:
            log.error("the configuration is refused, the old one stays", reason=str(error))
            issue = Issue(
                *about, sentence=f"The changed configuration was refused, the old one is in force: {error}",
                remedy="Correct it (brickyard-coordinator config check), then: systemctl reload brickyard-coordinator",
            )  # fmt: skip
            await self.opened.db.write(lambda conn: issues.raise_issue(conn, issue))
            return
        found = changes(self.settings, new)
        fleet = self.settings.fleet.model_copy(update={"away_deadline_s": new.fleet.away_deadline_s})
        taken = {"log": new.log, "housekeeping": new.housekeeping, "fleet": fleet, "scheduler": new.scheduler}
        self.settings = self.settings.model_copy(update=taken)
        new.log.apply()
        self.engine.wait_for_hosts(fleet.away_deadline_s)
        if self.housekeeper is not None:
            self.housekeeper.follow(new.housekeeping)
        await self.opened.db.write(lambda conn: issues.close(conn, about[0], about[2]))
        log.info("configuration reloaded", changed=list(found.taken), at_the_next_start=list(found.later) or None)

    async def stop(self) -> None:
        """Stop accepting, let running steps end for a while, hand the rest back."""
        if self._runner is not None:
            await self._runner.cleanup()
        for task in self.background:
            task.cancel()
        await self.engine.close(self.settings.coordinator.stop_grace_s)
        await self.poller.close()
        await self.membership.close()
        await self.listener.close()
        await self.directory.close()
        await self.app[_IMAGES].close()
        self.identity.close()
        if self.compute is not None:
            await self.compute.close()
        if self.depository is not None:
            await self.depository.close()
        await asyncio.to_thread(self.opened.db.close)


def _bound(address: str, port: int) -> socket.socket:
    """The API's socket, before anything is begun: a taken port must leave no work half taken over."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((address, port))
    except OSError as error:
        made.close()
        reason = error.strerror or str(error)
        raise PortTaken(purpose="API", address=address, port=port, key="coordinator.port", reason=reason) from error
    return made


def build(settings: CoordinatorSettings, opened: Opened) -> Coordinator:
    """Put a coordinator together; call inside the event loop that it will run on."""
    section = settings.coordinator
    names = (socket.gethostname(), "localhost", "127.0.0.1")
    tls = own_identity(settings.state_dir / "identity", opened.authority, names=names)
    enrolment = Enrolment(opened.authority, opened.db)
    directory = Directory(tls)
    reconciler = Reconciler(opened.db)
    streams, policy, scheduler = ImageStreams(opened.db, tls), _policy(settings), Scheduler(settings.scheduler)
    compute, completions, images = _compute(settings), Completions(opened.db), image_parts(settings, opened, policy)
    completions.follow()
    known = workflows(
        opened.keys, streams, scheduler=scheduler, compute=compute, completions=completions,
        login=images.client.login, cache=images.cache, image_volumes=images.volumes,
    )  # fmt: skip
    owner = f"{socket.gethostname()[:40]}:{new_id()[:8]}"
    membership = Membership(opened.db, owner, socket.gethostname()[:255], RELEASE)
    poller = Poller(opened.db, directory, reconciler, Renewal(enrolment, tls), settings.fleet.poll_interval_s,
                    membership=membership)  # fmt: skip
    engine = Engine(
        opened.db, directory, known, owner=owner, exclusive=opened.db.alone, parallel=section.parallel,
        away_deadline_s=settings.fleet.away_deadline_s, member_lease_s=settings.fleet.member_lease_s,
    )  # fmt: skip
    listener = EnrolmentListener(
        enrolment, tls, settings.enrolment.listen, settings.enrolment.port, enrolled=poller.enrolled
    )
    identity = LocalIdentity(opened.db, opened.tokens, settings.identity)
    depository, prover, keeper = _depository(settings, opened), authenticator(identity), images.keeper(engine)
    tree = ProjectTree(opened.db, prover) if settings.quota.nested else None
    services = Services(
        db=opened.db,
        policy=policy,
        authenticator=prover,
        settings=settings.api,
        others={
            Engine: engine,
            Scheduler: scheduler,
            KeyStore: opened.keys,
            ImageStreams: streams,
            ImageClient: images.client,
            Directory: directory,
            Poller: poller,
            Reconciler: reconciler,
            Enrolment: enrolment,
            EnrolmentListener: listener,
            LocalIdentity: identity,
            CoordinatorSettings: settings,
            ResourceFilters: _filters(settings),
            Completions: completions,
            Signatures: images.signatures,
            ImagesSection: settings.images,
            **_perhaps(compute, depository, images.protections, tree, keeper),
        },
    )
    app = make_app(_served(settings), services, Hooks(crashed=_crashed(opened)))
    app[_IMAGES] = images
    return Coordinator(
        settings, opened, tls, enrolment, listener, directory, membership, poller, engine, identity, app, compute,
        [*_told(settings, opened, membership), *images.registered(opened)], depository, keeper,
    )  # fmt: skip


def _perhaps(
    compute: Compute | None,
    depository: Depository | None,
    protections: Protections | None,
    tree: ProjectTree | None,
    keeper: CacheKeeper | None,
) -> dict[type, object]:
    """What not every site has."""
    service = ComputeService(compute) if compute is not None else None
    return {type(one): one for one in (service, depository, protections, tree, keeper) if one is not None}


def _policy(settings: CoordinatorSettings) -> Policy:
    file, scoped = settings.identity.policy_file, settings.identity.enforce_scope
    return Policy.from_file(file, scoped=scoped) if file else Policy.builtin(scoped=scoped)


def _served(settings: CoordinatorSettings) -> Iterable[Resource]:
    """Where a Keystone proves identities, the built-in service would give tokens that nobody takes; so with images."""
    away = []
    if settings.identity.strategy == "keystone":
        away.append("/identity")
    if settings.images.service == "glance":
        away.append("/image")
    return [resource for resource in all_resources() if not resource.prefix.startswith(tuple(away))]


def _told(settings: CoordinatorSettings, opened: Opened, membership: Membership) -> Sequence[Delivery | Capacity]:
    """What is sent out; where there is no receiver, nothing of it is loaded."""
    section = settings.notifications
    if not section.webhooks and section.messaging is None:
        return ()
    from coordinator.notifications.delivery import Delivery
    from coordinator.notifications.webhook import Webhook

    sinks: list[Sink] = [Webhook(hook) for hook in section.webhooks]
    made: list[Delivery | Capacity] = []
    if section.messaging is not None:
        from coordinator.notifications.messaging import Bus

        bus = Bus(section.messaging)
        sinks.append(bus)
        if section.messaging.capacity_s:
            from coordinator.server.capacity import Capacity

            made.append(Capacity(opened.db, bus, membership.mine, section.messaging.capacity_s))
    paces = {"look_s": section.look_s, "give_up_s": section.give_up_s}
    return [*made, *(Delivery(opened.db, sink, membership.mine, **paces) for sink in sinks)]


def _compute(settings: CoordinatorSettings) -> Compute | None:
    if settings.compute.strategy == "none":
        return None
    from coordinator.compute.nova import Nova
    from coordinator.identity.service_user import ServiceUser

    assert settings.identity.keystone is not None, "the settings see to it"
    return Nova(settings.compute, ServiceUser(settings.identity.keystone))


def _depository(settings: CoordinatorSettings, opened: Opened) -> Depository | None:
    section, managers = settings.keys, dict[str, Manager]()
    if section.vault is not None:
        from coordinator.keys.vault import Vault

        managers["vault"] = Vault(section.vault)
    if section.barbican is not None:
        from coordinator.identity.service_user import ServiceUser
        from coordinator.keys.barbican import Barbican

        assert settings.identity.keystone is not None, "the settings see to it"
        managers["barbican"] = Barbican(section.barbican, ServiceUser(settings.identity.keystone))
    if not managers:
        return None
    interval = min(one.interval_s for one in (section.vault, section.barbican) if one is not None)
    return Depository(opened.db, opened.keys, managers, section.target, interval)


def _filters(settings: CoordinatorSettings) -> ResourceFilters:
    path = settings.api.resource_filters_file
    return ResourceFilters.from_file(path) if path is not None else ResourceFilters.builtin()


def _crashed(opened: Opened) -> Callable[[Crash], Awaitable[None]]:
    async def crashed(crash: Crash) -> None:
        """An unexpected 500 always leaves an issue."""
        issue = Issue(
            code="api.crash",
            resource_type="request",
            resource_id=crash.label[:64],
            sentence=f"{crash.label} failed with {type(crash.error).__name__}.",
            remedy="Report it with the log lines of this request id and the support bundle.",
            request_id=crash.request_id,
        )

        def store(conn: Connection) -> None:
            issues.raise_issue(conn, issue)

        await opened.db.write(store)

    return crashed
