"""Which key signs, and which are published, at each instant of a rotation."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.contracts.users import ACCESS_TOKEN_LIFETIME_SECONDS
from shared.signing_keys import (
    CLOCKS_DIFFER_SECONDS,
    SigningKey,
    published_keys,
    read_keys,
    signing_key,
    written,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
OLD, NEW = SigningKey.new(), SigningKey.new(signs_from=NOW)


def test_key_id_is_the_thumbprint_of_rfc_8037() -> None:
    """The key and its thumbprint are those of RFC 8037, appendix A.3."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(seed))
    assert key.public_jwk["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert key.key_id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize(
    ("seconds_after", "signing", "published"),
    [
        (-3600, OLD, [OLD, NEW]),  # published before it signs
        (-1, OLD, [OLD, NEW]),
        (0, NEW, [NEW, OLD]),
        (ACCESS_TOKEN_LIFETIME_SECONDS, NEW, [NEW, OLD]),  # the last token of the old one has just ended
        (ACCESS_TOKEN_LIFETIME_SECONDS + CLOCKS_DIFFER_SECONDS, NEW, [NEW]),
    ],
)
@pytest.mark.parametrize("keys", [[OLD, NEW], [NEW, OLD]])
def test_keys_change_over_by_the_clock(
    keys: list[SigningKey], seconds_after: int, signing: SigningKey, published: list[SigningKey]
) -> None:
    now = NOW + timedelta(seconds=seconds_after)
    assert signing_key(keys, now) is signing
    assert published_keys(keys, now) == published


def test_a_key_that_does_not_sign_yet_does_so_where_there_is_no_other() -> None:
    assert signing_key([NEW], NOW - timedelta(days=1)) is NEW


def test_what_is_written_is_read_again() -> None:
    keys = read_keys(written([NEW, OLD]))
    assert [(key.key_id, key.signs_from) for key in keys] == [(k.key_id, k.signs_from) for k in (NEW, OLD)]
