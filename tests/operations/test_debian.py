"""Installing packages: no server is started by it, and the machine's own policy stands again afterwards."""

import pytest

from operations import debian as subject
from operations.errors import OperationFailed


@pytest.fixture
def policy(tmp_path, monkeypatch):
    """A policy file that is not the machine's."""
    path = tmp_path / "policy-rc.d"
    monkeypatch.setattr(subject, "POLICY", path)
    monkeypatch.setattr(subject, "CLUSTERS", tmp_path / "clusters")
    return path


@pytest.fixture
def ran(policy, monkeypatch):
    """The commands that would be run, each with what the policy said meanwhile."""
    commands = []
    monkeypatch.setattr(
        subject, "_run", lambda command: commands.append((command, policy.exists() and policy.read_text()))
    )
    monkeypatch.setattr(subject.shutil, "which", lambda name: None)
    return commands


def test_no_server_may_start_while_packages_are_installed(policy, ran):
    subject.install(["postgresql"])

    assert [said for _, said in ran] == ["#!/bin/sh\nexit 101\n"] * 2
    assert not policy.exists()


def test_policy_of_the_machine_stands_again_afterwards(policy, ran):
    policy.write_text("the machine's own")

    subject.install(["postgresql"])

    assert policy.read_text() == "the machine's own"


def test_policy_of_the_machine_stands_again_after_a_failure(policy, monkeypatch):
    def fail(command):
        raise OperationFailed("no network")

    policy.write_text("the machine's own")
    monkeypatch.setattr(subject, "_run", fail)

    with pytest.raises(OperationFailed):
        subject.install(["postgresql"])

    assert policy.read_text() == "the machine's own"


def test_cluster_that_the_package_made_is_dropped_and_no_other(policy, ran, monkeypatch):
    theirs, made = subject.CLUSTERS / "15" / "theirs", subject.CLUSTERS / "15" / "main"
    theirs.mkdir(parents=True)
    run = subject._run
    monkeypatch.setattr(
        subject, "_run", lambda command: (made.mkdir(exist_ok=True) if "install" in command else None, run(command))
    )

    subject.install(["postgresql"])

    assert [command for command, _ in ran if command[0] == "pg_dropcluster"] == [["pg_dropcluster", "15", "main"]]
