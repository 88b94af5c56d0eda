"""NVMe and iSCSI over RDMA (RoCE in software): the path lost and back, another volume, kills, a target that is gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel import test_one_path as one_path
from tests.kernel.support import soft_rdma
from tests.kernel.support.pair import Pair

pair = one_path.pair
test_another_volume_at_the_address_is_refused = one_path.test_another_volume_at_the_address_is_refused
test_detach_when_the_target_is_gone = one_path.test_detach_when_the_target_is_gone
test_killed_while_attaching_and_detaching = one_path.test_killed_while_attaching_and_detaching
test_the_path_is_lost_and_io_goes_on_when_it_is_back = one_path.test_the_path_is_lost_and_io_goes_on_when_it_is_back


@pytest.fixture(scope="module", params=[soft_rdma.by_nvme, soft_rdma.by_iser])
def hosts(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with request.param() as made:
        yield made
