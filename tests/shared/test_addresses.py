"""Which addresses may be called: nothing that leads back into our own network, however it is written."""

import ipaddress

import pytest

from shared.addresses import AddressRefused, allowed_places, is_public, place_of

NOWHERE: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    "url",
    [
        "http://pay.example.com",
        "ftp://pay.example.com",
        "file:///etc/passwd",
        "https://",
        "https://user:password@pay.example.com",
        "https://pay.example.com@127.0.0.1",
        "https://pay.example.com/?a=1",
        "https://pay.example.com/#x",
        "https://pay.example.com\\@127.0.0.1/",
        "https://pay.example.com:99999",
        "https://pay .example.com",
        "https://päy.example.com",
        "https://localhost",
        "https://ledger",
        "https://127.0.0.1",
        "https://127.1",
        "https://2130706433",
        "https://0x7f000001",
        "https://0x7f.0.0.1",
        "https://0177.0.0.1",
        "https://0",
        "https://127.0.0.1.",
        "https://10.0.0.8",
        "https://172.16.3.4",
        "https://192.168.1.1",
        "https://100.64.0.1",
        "https://169.254.169.254",
        "https://0.0.0.0",
        "https://224.0.0.1",
        "https://255.255.255.255",
        "https://[::1]",
        "https://[::]",
        "https://[::ffff:127.0.0.1]",
        "https://[::ffff:a9fe:a9fe]",
        "https://[fe80::1]",
        "https://[fe80::1%25eth0]",
        "https://[fc00::1]",
        "https://[fd00:ec2::254]",
        "https://[64:ff9b::7f00:1]",
        "https://[2002:7f00:1::]",
        "https://[ff02::1]",
        "https://[fec0::1]",
        "https://[::127.0.0.1]",
        "https://[2001:0:5ef5:79fd:0:59d:80ff:fffe]",
        "https://[3fff::1]",
        "https://192.0.0.192",
        "https://168.63.129.16",
        "https://[::ffff:168.63.129.16]",
        "https://[v1.fe80]",
        "https://pay.example.com:0",
        "https://pay\x01.example.com",
        "\x01https://pay.example.com",
        "https://pay.example.com/\x7f",
        "https://a%6d.example.com",
        "https://127.0.0.1%00.example.com",
        "https://pay..example.com",
        "https://-pay.example.com",
        "https://" + "a" * 300 + ".example.com",
    ],
)
def test_address_that_is_no_platforms_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        place_of(url, NOWHERE)


def test_public_address_is_taken_apart() -> None:
    place = place_of("https://pay.example.com/api/", NOWHERE)
    assert (place.host, place.port, place.path, place.is_named) == ("pay.example.com", 443, "/api", False)
    assert place_of("https://93.184.216.34:8443", NOWHERE).port == 8443
    for url in ("https://pay.example.com./", "HTTPS://PAY.example.com", "https://xn--pay-9ja.example.com"):
        assert place_of(url, NOWHERE).host.endswith("example.com")


def test_place_that_the_operator_named_is_taken_and_its_other_ports_are_not() -> None:
    allowed = allowed_places(" 127.0.0.1:9000 , Platform:8090,[::1]:9443,")
    assert place_of("https://[::1]:9443", allowed).is_named
    assert place_of("http://127.0.0.1:9000/pay", allowed).is_named
    assert place_of("http://platform:8090", allowed).is_named
    for url in ("http://127.0.0.1:9001", "http://localhost:9000", "https://127.0.0.1", "https://[::1]"):
        with pytest.raises(AddressRefused):
            place_of(url, allowed)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
