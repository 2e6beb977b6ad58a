"""What a rotation of the signing key writes."""

from datetime import timedelta
from pathlib import Path

import pytest

from operations import signing_keys as subject
from operations.errors import OperationFailed
from operations.home import Home
from operations.keys import signing_key_file
from shared.signing_keys import published_keys, read_keys, signing_key
from shared.times import utc_now


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def keys_of(home):
    return read_keys(signing_key_file(home).read_text())


def test_new_key_waits_and_the_old_one_stays(home):
    [old] = keys_of(home)

    key_id, signs_from = subject._add_key(home, 20)

    keys = keys_of(home)
    assert signing_key(keys, utc_now()).key_id == old.key_id
    assert signing_key(keys, signs_from).key_id == key_id
    assert {key.key_id for key in published_keys(keys, utc_now())} == {old.key_id, key_id}
    assert signing_key_file(home).stat().st_mode & 0o777 == 0o600


def test_second_rotation_waits_for_the_first(home):
    subject._add_key(home, 20)

    with pytest.raises(OperationFailed, match="waits already"):
        subject._add_key(home, 20)


def test_key_whose_tokens_have_ended_leaves_the_file(home, monkeypatch):
    subject._add_key(home, 0)
    later = utc_now() + timedelta(hours=1)
    monkeypatch.setattr("shared.times.utc_now", lambda: later)

    subject._add_key(home, 0)

    assert len(keys_of(home)) == 2


def test_copy_in_the_volume_of_containers_changes_too(home, tmp_path, monkeypatch):
    (tmp_path / "orders" / "users").mkdir(parents=True)
    monkeypatch.setenv("ORDERS", str(tmp_path / "orders"))

    subject._add_key(home, 20)

    assert Path(tmp_path / "orders" / "users" / "signing.pem").read_text() == signing_key_file(home).read_text()
