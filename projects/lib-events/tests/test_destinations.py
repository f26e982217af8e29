"""Where webhooks may go: a table of those that must never be reached, and names that lie about where they are."""

import ipaddress

import httpcore
import pytest

from lib_events.clock import SystemClock, to_datetime
from lib_events.event import Event
from lib_events.http.destinations import CheckedNetwork, DestinationRefused, Destinations, SystemResolver, is_public
from lib_events.testing.receiver import receiving
from lib_events.webhooks.sender import Sender
from lib_events.webhooks.webhook import new_secret

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)

REFUSED_ADDRESSES = (
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",  # metadata of most clouds
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",  # metadata of another
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",  # NAT64 of 127.0.0.1
    "64:ff9b:1::1",
    "2001::1",  # Teredo
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
)

REFUSED_URLS = (
    "http://example.org/",
    "ftp://example.org/",
    "file:///etc/passwd",
    "//example.org/",
    "https:///path",
    "https://user:password@example.org/",
    "https://user@example.org/",
    "https://example.org:22/",
    "https://example.org:25/",
    "https://example.org:0/",
    "https://example.org:99999/",
    "https://example.org:x/",
    "https://example.org/#fragment",
    "https://example.org\\@10.0.0.1/",
    "https://example.org/a b",
    "https://example.org/\r\nx: y",
    "https://exämple.org/",
    "https://[::1",
    "https://127.0.0.1/",
    "https://[::ffff:127.0.0.1]/",
    "https://169.254.169.254/latest/meta-data/",
    "https://example.org/" + "a" * 2_000,
)

# The resolver makes a loopback address of each of these.
LOOPBACK_BY_ANOTHER_NAME = ("localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1")


def an_event():
    return Event("1", "/shop", "shop.order.placed", to_datetime(SystemClock().micros()), data={"id": "42"})


async def send(sender, url):
    return await sender.send(url, an_event(), message_id="msg_1", secrets=[new_secret()])


@pytest.mark.parametrize("text", REFUSED_ADDRESSES)
def test_an_address_that_is_not_public_is_refused(text):
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["1.1.1.1", "93.184.215.14", "2606:4700::1111"])
def test_a_public_address_is_not(text):
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_a_url_that_could_go_elsewhere_is_refused(url):
    with pytest.raises(DestinationRefused):
        Destinations().check(url)


@pytest.mark.parametrize(
    "url",
    ["https://example.org", "https://example.org:8443/hook?key=1", "https://1.1.1.1/", "https://xn--bcher-kva.ch"],
)
def test_an_ordinary_url_is_not(url):
    Destinations().check(url)


def test_the_operator_names_networks_and_only_those_are_open():
    destinations = Destinations((ipaddress.ip_network("10.1.0.0/16"),))
    destinations.check("https://10.1.2.3:8443/")
    destinations.check("http://10.1.2.3/")
    destinations.check("http://inside.example/")  # where that is shows when it is resolved
    for url in ("https://10.2.0.1/", "https://169.254.169.254/", "http://1.1.1.1/"):
        with pytest.raises(DestinationRefused, match="public address"):
            destinations.check(url)
    assert not destinations.permits(ipaddress.ip_address("1.1.1.1"), is_plain=True)


@pytest.mark.parametrize("name", LOOPBACK_BY_ANOTHER_NAME)
async def test_a_name_that_resolves_to_a_private_address_is_not_connected_to(name):
    async with receiving() as receiver, Sender(Destinations()) as sender:
        port = receiver.url.split(":")[2]
        outcome = await send(sender, f"https://{name}:{port}")
    assert receiver.connections == 0
    assert outcome.status is None
    assert "public address" in outcome.error
    assert "127" not in outcome.error  # what a name means in our network is nobody's business


async def test_a_name_that_means_something_else_a_moment_later_reaches_what_was_checked():
    answers = [["127.0.0.2"], ["127.0.0.1"], ["127.0.0.1"]]
    asked = []

    async def rebinding(host, port):
        asked.append(host)
        return answers[len(asked) - 1]

    # 127.0.0.2 stands for the public address, 127.0.0.1 for what must not be reached.
    destinations = Destinations((ipaddress.ip_network("127.0.0.2/32"),))
    async with receiving() as receiver, Sender(destinations, resolve=rebinding) as sender:
        url = f"http://rebinding.example:{receiver.url.split(':')[2]}"
        first, second = await send(sender, url), await send(sender, url)
    assert asked == ["rebinding.example"] * 2  # once for each connection, never between check and use
    assert receiver.connections == 0
    assert "connection failed" in first.error  # nobody listens there
    assert "public address" in second.error


async def test_of_several_addresses_only_permitted_ones_are_tried():
    async def resolve(host, port):
        return ["10.0.0.1", "169.254.169.254", "127.0.0.1"]

    async with receiving() as receiver, Sender(Destinations(LOOPBACK), resolve=resolve) as sender:
        outcome = await send(sender, receiver.url.replace("127.0.0.1", "several.example"))
    assert (outcome.status, outcome.error) == (204, None)
    assert receiver.received[0].headers["host"].startswith("several.example:")


async def test_plain_http_never_reaches_a_public_address():
    async def resolve(host, port):
        return ["1.1.1.1"]

    network = CheckedNetwork(Destinations(LOOPBACK), resolve, is_plain=True)
    with pytest.raises(DestinationRefused):
        await network.connect_tcp("one.example", 80)


async def test_a_name_without_an_address_is_a_failed_connection():
    with pytest.raises(httpcore.ConnectError, match="no address"):
        await SystemResolver()("nowhere.invalid", 443)
