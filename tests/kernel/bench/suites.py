"""What is known of test files: those that live elsewhere and show more on this kernel, and those that take long."""

from __future__ import annotations

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "x86_64": (
        "tests/integration/agent/test_local_attach.py",
        "tests/integration/agent/test_jobs_attach.py",
    ),
    # On a big-endian processor what matters is whether bytes of headers, ioctls and wire formats are read right.
    "s390x": (
        "tests/unit/agent/luks/test_luks_headers.py",
        "tests/unit/agent/images",
        "tests/unit/agent/host",
        "tests/integration/agent/test_local_attach.py",
    ),
    "dasd": (),
}
# Ciphers of many sectors at once need numpy, which is not published for that processor.
NEED_NUMPY = (
    "tests/unit/agent/luks/test_luks_headers.py::test_wrong_secret",
    "tests/unit/agent/images/test_disk.py::test_any_layout_reads_as_it_was_laid",
    "tests/unit/agent/images/test_disk.py::test_any_layout_with_subclusters",
    "tests/unit/agent/images/test_disk.py::test_a_compressed_cluster_unpacks_to_its_own_size_and_no_further",
    "tests/unit/agent/images/test_qcow2_fuzz.py",
)
# About how long a file takes in a guest that shares its processor; others take less than half a minute.
SECONDS = {
    "test_lvm_agent.py": 440,
    "test_rbd.py": 360,
    "test_dasd.py": 300,
    "test_fc.py": 250,
    "test_nvme_raid.py": 240,
    "test_iscsi_agents.py": 210,
    "test_cut_off.py": 200,
    "test_lvm_image.py": 150,
    "test_lvm_backend.py": 140,
    "test_lvm_pair.py": 140,
    "test_nvme_agents.py": 130,
    "test_rdma.py": 100,
    "test_rbd_site.py": 100,
    "test_encrypted_attach.py": 85,
    "test_vhost.py": 60,
    "test_one_path.py": 50,
    "test_jobs_attach.py": 40,
    "test_nvme_site.py": 40,
    "test_iscsi_site.py": 40,
    "test_smb_backend.py": 40,
}
