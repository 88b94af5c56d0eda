"""What whoever runs a site does with `brickyard`: users, hosts, quota, draining."""

from __future__ import annotations

import json

from tests.integration.cli.site import Site


def test_users_projects_and_roles(site: Site) -> None:
    site.ok("project", "create", "team")
    site.ok("user", "create", "ann", "--project", "team", "--password-stdin", stdin="long enough 1\n")
    assert site.run("volume", "list", OS_USERNAME="ann", OS_PASSWORD="long enough 1", OS_PROJECT_NAME="team").code == 3
    site.ok("role", "grant", "member", "--user", "ann", "--project", "team")
    (given,) = site.run("role", "assignments", "--user", "ann", "--json").json
    assert given == {"user": "ann", "role": "member", "scope": "project", "on": "team"}
    as_ann = {"OS_USERNAME": "ann", "OS_PASSWORD": "long enough 1", "OS_PROJECT_NAME": "team"}
    assert site.run("volume", "list", "--json", **as_ann).json == []
    assert site.run("host", "list", "--json", **as_ann).code == 3
    site.ok("role", "revoke", "member", "--user", "ann", "--project", "team")
    site.ok("user", "delete", "ann", "--yes")
    site.ok("project", "delete", "team", "--yes")


def test_hosts_tokens_and_services(site: Site) -> None:
    (host,) = site.run("host", "list", "--json").json
    assert (host["id"], host["state"]) == ("host-a", "up")
    assert site.run("host", "show", "host-a", "--json").json["pools"]
    assert site.run("host", "disable", "host-a", "--reason", "work", "--json").json["enabled"] is False
    assert site.run("host", "enable", "host-a", "--json").json["enabled"] is True
    assert site.ok("host", "token", "host-z", "-o", "value").startswith("byj1.")


def test_a_host_is_drained_and_waited_for(site: Site) -> None:
    site.ok("volume", "create", "stays", "--size", "1", "--wait")
    before = site.run("host", "drain", "host-a", "--dry-run", "--json").json
    assert (before["drained_at"], before["quiet"], before["working"]) == (None, False, [])
    done = site.run("host", "drain", "host-a", "--reason", "new memory", "--wait")
    assert done.code == 0, done.err
    assert "volumes" in done.out
    assert "are not moved to another one yet" in done.out
    assert "brickyard host enable host-a" in done.err
    refused = site.run("volume", "create", "more", "--size", "1", "--wait")
    assert (refused.code, "is disabled (new memory)" in refused.err) == (9, True)
    site.ok("volume", "delete", "stays", "more", "--yes", "--wait")
    assert site.run("host", "enable", "host-a", "--json").json["drained_at"] is None
    assert site.run("host", "drain", "host-a", "--dry-run", "--wait").code == 2
    assert site.run("host", "drain", "moon").code == 4


def test_the_site_is_read_only_for_a_while(site: Site) -> None:
    assert site.run("site", "read-only", "--reason", "it moves", "--json").json["reason"] == "it moves"
    refused = site.run("volume", "create", "never", "--size", "1")
    assert (refused.code, "read-only since" in refused.err, "it moves" in refused.err) == (7, True, True)
    assert site.run("volume", "list", "--json").json == []
    site.ok("site", "read-write")
    assert site.run("site", "show", "--json").json == {"since": None, "reason": None}


def test_services_issues_and_quota(site: Site) -> None:
    assert "cinder-volume" in site.ok("service", "list")
    assert site.ok("issue", "list").startswith("ID ")
    assert "volumes" in site.ok("quota", "show")


def test_the_host_is_looked_at_while_its_agent_runs(site: Site) -> None:
    volume = site.ok("volume", "create", "seen", "--size", "1", "--wait", "-o", "value").strip()
    assert f"volume {volume}" in site.agent("explain", volume).out
    findings = json.loads(site.agent("doctor", "--json").out)
    assert {item["state"] for item in findings if item["check"] in {"agent", "journal", "identity", "rights"}} == {"ok"}
    bundle = site.folder / "bundle.tar.gz"
    assert site.agent("support-bundle", str(bundle)).code == 0
    site.ok("volume", "delete", "seen", "--yes", "--wait")
