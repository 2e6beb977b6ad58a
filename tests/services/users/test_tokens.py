"""The signing keys: which file is taken, and what is published."""

from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import OKPAlgorithm

from services.users.tokens import SigningKeys
from shared.contracts.users import JWT_AUDIENCE
from shared.times import utc_now


def pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_first_key_of_the_file_signs_and_all_are_published(tmp_path: Path) -> None:
    new, old = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    file = tmp_path / "signing.pem"
    file.write_bytes(pem(new) + pem(old))
    keys = SigningKeys.from_file(str(file))
    published = keys.public_view()["keys"]
    assert [key["x"] for key in published] == [SigningKeys([k]).public_view()["keys"][0]["x"] for k in (new, old)]
    assert all(set(key) == {"kty", "crv", "x", "kid", "use", "alg"} for key in published)  # no private part
    token = keys.access_token(user_id="usr_1", session_id="ses_1", now=utc_now())
    assert jwt.get_unverified_header(token)["kid"] == published[0]["kid"]
    key = OKPAlgorithm.from_jwk(published[0])
    assert jwt.decode(token, key, algorithms=["EdDSA"], audience=JWT_AUDIENCE)["sid"] == "ses_1"


def test_key_id_is_the_thumbprint_of_rfc_8037(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key and its thumbprint are those of RFC 8037, appendix A.3."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    [key] = SigningKeys([Ed25519PrivateKey.from_private_bytes(seed)]).public_view()["keys"]
    assert key["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert key["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("content", [b"", b"no key", pem(ec.generate_private_key(ec.SECP256R1()))])
def test_file_without_an_ed25519_key_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "signing.pem"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="Ed25519"):
        SigningKeys.from_file(str(file))
