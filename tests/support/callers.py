"""The clients that people have, as the site's administrator: python-cinderclient and openstacksdk, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cinderclient import client as cinderclient
from cinderclient.exceptions import ClientException as CinderError
from keystoneauth1 import session
from keystoneauth1.exceptions import ClientException as SessionError
from keystoneauth1.identity.v3 import Password
from openstack import connection
from openstack.exceptions import SDKException

if TYPE_CHECKING:
    from tests.support.api import Api

NOT_DONE = (CinderError, SessionError, SDKException, OSError)
"""What a client raises when a call is refused, or nobody answers."""
_TIMEOUT_S = 30.0


class Callers:
    """Both clients of one coordinator, logged in."""

    def __init__(self, api: Api) -> None:
        login = Password(
            f"http://127.0.0.1:{api.port}/identity/v3", username="admin", password=api.password(),
            project_name="admin", user_domain_name="Default", project_domain_name="Default",
        )  # fmt: skip
        self._session = session.Session(login, timeout=_TIMEOUT_S)
        self.cinder: Any = cinderclient.Client("3.71", session=self._session, region_name="RegionOne")
        self.sdk: Any = connection.Connection(
            session=self._session, region_name="RegionOne", block_storage_api_version="3",
            block_storage_default_microversion="3.71",
        ).block_storage  # fmt: skip
        # Both look the endpoint up once, while the coordinator answers.
        self.cinder.volumes.list(detailed=False)
        list(self.sdk.volumes(details=False))
