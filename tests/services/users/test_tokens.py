"""The signing keys: which file is taken, which key signs, what is published, and what a change of the file does."""

from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import OKPAlgorithm
from sqlalchemy.orm import Session

from services.users.tokens import SigningKeys
from services.users.usecases.signing_keys import announce_signing_key
from shared.contracts.users import JWT_AUDIENCE, SigningKeyNotFound
from shared.signing_keys import SigningKey, written
from shared.times import rfc3339, utc_now
from tests.services.users.conftest import events


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "signing.pem"


def replace(file: Path, text: str) -> None:
    draft = file.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(file)


def key_id_of(keys: SigningKeys) -> str:
    token = keys.access_token(user_id="usr_1", session_id="ses_1", now=utc_now())
    return str(jwt.get_unverified_header(token)["kid"])


def test_first_key_of_the_file_signs_and_all_are_published(file: Path) -> None:
    new, old = SigningKey.new(), SigningKey.new()
    file.write_text(written([new, old]))
    keys = SigningKeys.from_file(str(file))
    published = keys.public_view()["keys"]
    assert [key["kid"] for key in published] == [new.key_id, old.key_id]
    assert all(set(key) == {"kty", "crv", "x", "kid", "use", "alg"} for key in published)  # no private part
    token = keys.access_token(user_id="usr_1", session_id="ses_1", now=utc_now())
    assert jwt.get_unverified_header(token)["kid"] == published[0]["kid"]
    key = OKPAlgorithm.from_jwk(published[0])
    assert jwt.decode(token, key, algorithms=["EdDSA"], audience=JWT_AUDIENCE)["sid"] == "ses_1"


def test_a_changed_file_is_read_by_whoever_runs_already(file: Path) -> None:
    old, new = SigningKey.new(), SigningKey.new(signs_from=utc_now())
    file.write_text(written([old]))
    keys = SigningKeys.from_file(str(file))
    assert key_id_of(keys) == old.key_id
    replace(file, written([new, old]))
    assert key_id_of(keys) == new.key_id
    assert [key["kid"] for key in keys.public_view()["keys"]] == [new.key_id, old.key_id]


def test_a_file_that_cannot_be_read_leaves_what_was_known(file: Path) -> None:
    old = SigningKey.new()
    file.write_text(written([old]))
    keys = SigningKeys.from_file(str(file))
    replace(file, "no key")
    assert key_id_of(keys) == old.key_id
    file.unlink()
    assert key_id_of(keys) == old.key_id


def test_pem_alone_is_a_key_file_too(file: Path) -> None:
    key = SigningKey.new()
    file.write_bytes(key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert key_id_of(SigningKeys.from_file(str(file))) == key.key_id


EC_KEY = (
    ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
)


@pytest.mark.parametrize("content", ["", "no key", EC_KEY])
def test_file_without_an_ed25519_key_is_refused(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(ValueError, match="Ed25519"):
        SigningKeys.from_file(str(file))


def test_a_key_is_told_of_once_it_stands_in_the_file(session: Session) -> None:
    known, other = SigningKey.new(signs_from=utc_now()), SigningKey.new()
    announce_signing_key(session, SigningKeys(lambda: [known]), key_id=known.key_id, reason="yearly")
    [told] = events(session, "SigningKeyRotated")
    assert told["resource_id"] == known.key_id
    assert told["payload"]["signs_from"] == rfc3339(known.signs_from)
    assert told["payload"]["reason"] == "yearly"
    with pytest.raises(SigningKeyNotFound):
        announce_signing_key(session, SigningKeys(lambda: [known]), key_id=other.key_id, reason="yearly")
