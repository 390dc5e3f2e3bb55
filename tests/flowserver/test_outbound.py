"""The rows of RELIABILITY §2.5 and §6.3 that concern the client; nothing here leaves 127.0.0.1."""

from __future__ import annotations

import asyncio
import gzip
import socket
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx
import openai
import pytest

from flowserver.metered import ResponseTooLarge
from flowserver.outbound import UrlNotAllowed, outbound_client
from tests.web_server import Raw, Reply, Request, WebServer, redirect, reply_json

PUBLIC = "93.184.216.34"
NAMES = {
    "public.example": [PUBLIC],
    "xn--bcher-kva.example": [PUBLIC],
    "loopback.example": ["127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "mixed.example": [PUBLIC, "10.0.0.7"],
    "mixed-families.example": [PUBLIC, "fd00::7"],
    "sixtofour.example": ["2002:7f00:1::"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "nat64-azure.example": ["64:ff9b::a83f:8110"],
    "azure.example": ["168.63.129.16"],
    "metadata.google.internal": ["169.254.169.254"],
    "db.internal": ["10.1.2.3"],
    "localhost": ["127.0.0.1", "::1"],
    "localhost.": ["127.0.0.1"],
    "models.internal": ["127.0.0.1"],
    "other.internal": ["127.0.0.1"],
}


class Names:
    """A resolver that knows `NAMES`, and reads literal addresses as the system does."""

    def __init__(self, **changing: Sequence[str]) -> None:
        self.asked: list[str] = []
        self._changing = {name.replace("_", "."): iter(answers) for name, answers in changing.items()}

    def __call__(self, host: str, port: int, *hints: int) -> list[Any]:
        self.asked.append(host)
        if host in self._changing:
            addresses = [next(self._changing[host])]
        elif host in NAMES:
            addresses = NAMES[host]
        elif host[0].isdigit() or ":" in host:
            return socket.getaddrinfo(host, port, *hints)
        else:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [row for each in addresses for row in socket.getaddrinfo(each, port, *hints)]


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as server:
        yield server


@pytest.fixture
async def stranger() -> AsyncIterator[WebServer]:
    async with WebServer() as server:
        yield server


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every address that a connection is attempted to; none is made."""
    made: list[tuple[str, int]] = []

    async def connect_tcp(remote_host: object, remote_port: int, **_: object) -> None:
        made.append((str(remote_host), remote_port))
        raise ConnectionRefusedError

    monkeypatch.setattr("anyio.connect_tcp", connect_tcp)
    return made


async def refusal(url: str, *, allow: Sequence[str] = (), **options: Any) -> str:
    async with outbound_client(allow, resolver=Names()) as client:
        with pytest.raises(UrlNotAllowed) as refused:
            await client.get(url, **options)
    assert refused.value.code == "url_not_allowed"
    return refused.value.message


PRIVATE = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::1]/",
    "http://localhost/",
    "http://localhost./",
    "http://0.0.0.0/",
    "http://[::]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://168.63.129.16/",
    "http://[::ffff:168.63.129.16]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://192.0.0.192/",
    "http://100.100.100.200/",
    "http://100.64.0.1/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1]/",
    "http://224.0.0.1/",
    "http://metadata.google.internal/",
    "http://loopback.example/",
    "http://mapped.example/",
    "http://mixed.example/",
    "http://mixed-families.example/",
    "http://sixtofour.example/",
    "http://nat64.example/",
    "http://nat64-azure.example/",
    "http://azure.example/",
    "http://db.internal/",
    "https://db.internal:8443/",
    "http://127.0.0.1#@public.example/",
]


@pytest.mark.parametrize("url", PRIVATE)
async def test_sec_70_private_addresses_are_refused_before_any_connection(
    url: str, attempts: list[tuple[str, int]]
) -> None:
    message = await refusal(url)

    assert attempts == []
    host = httpx.URL(url).host
    assert not any(address in message for address in NAMES.get(host, []) if address != host)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@public.example/",
        "http://public.example@127.0.0.1/",
        "file:///etc/passwd",
        "gopher://public.example/",
        "ftp://public.example/",
        "data:text/plain,hello",
        "http:///nothing",
        "http://public.example:22/",
        "http://public.example:25/",
        "http://public.example:0/",
        "http://public.example:5432/",
        "http://public.example:6379/",
        "http://under_score.example/",
        "http://" + "a" * 300 + ".example/",
        "http://public.example/?q=" + "a" * 9000,
    ],
)
async def test_sec_70_other_schemes_ports_and_users_are_refused_before_any_connection(
    url: str, attempts: list[tuple[str, int]]
) -> None:
    message = await refusal(url)

    assert attempts == []
    assert "hunter2" not in message and len(message) < 300


@pytest.mark.parametrize(
    "url", ["http://0177.0.0.1/", "http://１２７.0.0.1/", "http://①②⑦.0.0.1/", "http://public.example\r\n/"]
)
async def test_sec_70_disguised_hosts_never_become_a_request(
    url: str, attempts: list[tuple[str, int]]
) -> None:
    async with outbound_client([], resolver=Names()) as client:
        with pytest.raises((UrlNotAllowed, httpx.InvalidURL)):
            await client.get(url)

    assert attempts == []


@pytest.mark.parametrize(
    ("url", "door"),
    [
        ("http://public.example/", (PUBLIC, 80)),
        ("https://public.example/", (PUBLIC, 443)),
        ("https://public.example:8443/", (PUBLIC, 8443)),
        (f"http://{PUBLIC}:8080/", (PUBLIC, 8080)),
        ("http://bücher.example/", (PUBLIC, 80)),
        ("http://[::ffff:8.8.8.8]/", (None, 80)),
    ],
)
async def test_sec_70_public_hosts_are_reached(
    url: str, door: tuple[str | None, int], attempts: list[tuple[str, int]]
) -> None:
    async with outbound_client([], resolver=Names()) as client:
        with pytest.raises(httpx.ConnectError) as failed:
            await client.get(url)

    assert [(address if door[0] else None, port) for address, port in attempts] == [door]
    assert "nothing answers there" in str(failed.value)


async def test_sec_71_the_checked_address_is_the_one_that_is_connected_to(
    attempts: list[tuple[str, int]],
) -> None:
    names = Names(moving_example=[PUBLIC, "127.0.0.1"])
    async with outbound_client([], resolver=names) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://moving.example/")
        assert (names.asked, attempts) == (["moving.example"], [(PUBLIC, 80)])

        with pytest.raises(UrlNotAllowed):
            await client.get("http://moving.example/")

    assert attempts == [(PUBLIC, 80)]


async def test_sec_71_an_allowed_name_is_resolved_once_for_a_connection(web: WebServer) -> None:
    web.on("/", Reply(body=b"hello"))
    names = Names()
    async with outbound_client([f"models.internal:{web.port}"], resolver=names) as client:
        answer = await client.get(web.url("/", host="models.internal"))

    assert (answer.text, names.asked) == ("hello", ["models.internal"])
    assert web.requests[0].headers["host"] == f"models.internal:{web.port}"


async def test_an_allowed_door_opens_no_other(web: WebServer, stranger: WebServer) -> None:
    allow = [f"models.internal:{web.port}"]

    await refusal(web.url("/", host="other.internal"), allow=allow)
    await refusal(web.url("/"), allow=allow)
    await refusal(stranger.url("/", host="models.internal"), allow=allow)
    await refusal(web.url("/", host="models.internal"), allow=allow, headers={"Host": "other.internal"})

    assert web.requests == stranger.requests == []


async def test_an_allowed_name_without_port_opens_all_its_ports(web: WebServer, stranger: WebServer) -> None:
    web.on("/", Reply(204))
    stranger.on("/", Reply(204))
    async with outbound_client(["models.internal"], resolver=Names()) as client:
        answers = [await client.get(server.url("/", host="models.internal")) for server in (web, stranger)]

    assert [answer.status_code for answer in answers] == [204, 204]


@pytest.mark.parametrize("name", ["metadata.google.internal", "azure.example", "nat64-azure.example"])
async def test_no_allowed_name_leads_to_metadata_services(name: str, attempts: list[tuple[str, int]]) -> None:
    await refusal(f"http://{name}/", allow=[name])

    assert attempts == []


@pytest.mark.parametrize(
    ("entry", "url", "door"),
    [
        ("db.internal", "http://db.internal:5432/", ("10.1.2.3", 5432)),
        ("10.0.0.1:8080", "http://10.0.0.1:8080/", ("10.0.0.1", 8080)),
        ("public.example:25", "http://public.example:25/", (PUBLIC, 25)),
        ("BÜCHER.example:25", "http://bücher.example:25/", (PUBLIC, 25)),
    ],
)
async def test_an_operator_opens_private_hosts_and_any_port(
    entry: str, url: str, door: tuple[str, int], attempts: list[tuple[str, int]]
) -> None:
    async with outbound_client([entry], resolver=Names()) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)

    assert attempts == [door]


@pytest.mark.parametrize("entry", ["[::1]", "[0:0::1]:8080", "[::1]:8080"])
async def test_ipv6_addresses_can_be_allowed(entry: str, attempts: list[tuple[str, int]]) -> None:
    async with outbound_client([entry], resolver=Names()) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://[::1]:8080/")

    assert attempts == [("::1", 8080)]


@pytest.mark.parametrize(
    "entry",
    [
        *("", "::1", "fe80::1:80", "[::1", "a b", "a_b", "*.x", "127.1"),
        *("http://x", "u@x", "x/y", "x:", "x:0", "x:99999", "x:http"),
        *("169.254.169.254", "168.63.129.16:80", "100.100.100.200", "0.0.0.0"),
    ],
)
def test_a_wrong_entry_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="cannot allow outbound requests to") as wrong:
        outbound_client(["fine:80", entry])

    assert repr(entry) in str(wrong.value)


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/",
        "http://db.internal/",
        "http://models.internal:1/",
        "http://public.example:22/",
        "http://user:hunter2@public.example/",
        "file:///etc/passwd",
        "gopher://public.example/",
        "ftp://public.example/",
        "//localhost/",
    ],
)
async def test_sec_72_every_hop_is_checked(web: WebServer, location: str) -> None:
    url = web.on("/", redirect(location))

    message = await refusal(url, allow=[web.door], follow_redirects=True)

    assert len(web.requests) == 1
    assert "169.254" not in message or "169.254" in location
    assert "hunter2" not in message


async def test_sec_72_a_redirect_to_data_is_an_error(web: WebServer) -> None:
    url = web.on("/", redirect("data:text/plain,hello"))
    async with outbound_client([web.door]) as client:
        with pytest.raises(httpx.InvalidURL):
            await client.get(url, follow_redirects=True)


async def test_sec_72_a_redirect_may_lead_to_an_allowed_host(web: WebServer, stranger: WebServer) -> None:
    url = web.on("/", redirect(stranger.url("/end")))
    stranger.on("/end", Reply(body=b"arrived"))
    async with outbound_client([web.door, stranger.door]) as client:
        answer = await client.get(url, follow_redirects=True)

    assert answer.text == "arrived"


async def test_sec_72_five_hops_are_the_most(web: WebServer) -> None:
    url = web.on("/", redirect("/"))
    async with outbound_client([web.door]) as client:
        with pytest.raises(httpx.TooManyRedirects):
            await client.get(url, follow_redirects=True)

    assert len(web.requests) == 6


SECRETS = {
    "Authorization": "Bearer hunter2",
    "X-Api-Key": "hunter2",
    "My-Own-Header": "hunter2",
    "Cookie": "session=hunter2",
    "Idempotency-Key": "hunter2",
}


async def test_sec_72_secrets_stay_at_the_origin(web: WebServer, stranger: WebServer) -> None:
    url = web.on("/", redirect("/next"))
    web.on("/next", redirect(stranger.url("/end")))
    stranger.on("/end", Reply())
    async with outbound_client([web.door, stranger.door]) as client:
        await client.get(url, headers={**SECRETS, "Accept": "text/plain"}, follow_redirects=True)

    assert web.requests[1].headers["x-api-key"] == "hunter2"
    assert stranger.requests[0].headers["accept"] == "text/plain"
    assert "hunter2" not in str(stranger.requests)


@pytest.mark.parametrize(
    ("status", "method", "body"),
    [(301, "GET", b""), (302, "GET", b""), (303, "GET", b""), (307, "POST", b"x"), (308, "POST", b"x")],
)
async def test_sec_72_a_post_becomes_a_get_where_it_should(
    web: WebServer, status: int, method: str, body: bytes
) -> None:
    url = web.on("/", redirect("/end", status))
    web.on("/end", Reply())
    async with outbound_client([web.door]) as client:
        await client.post(url, content=b"x", follow_redirects=True)

    assert [(request.method, request.body) for request in web.requests] == [("POST", b"x"), (method, body)]


async def endless(piece: bytes) -> AsyncIterator[bytes]:
    while True:
        yield piece


async def too_large(web: WebServer, reply: Reply, *, limit: int = 100_000) -> None:
    url = web.on("/", reply)
    async with outbound_client([web.door], max_bytes=limit) as client:
        with pytest.raises(ResponseTooLarge, match=f"more than {limit} bytes") as failed:
            async with asyncio.timeout(5):
                await client.get(url)
    assert failed.value.code == "response_too_large"


async def test_sec_73_a_large_body_is_cut(web: WebServer) -> None:
    await too_large(web, Reply(body=b"x" * 100_001))


async def test_sec_73_an_endless_body_is_cut(web: WebServer) -> None:
    await too_large(web, Reply(body=endless(b"x" * 10_000)))


async def test_sec_73_a_large_redirect_is_cut(web: WebServer) -> None:
    url = web.on("/", Reply(302, b"x" * 100_001, {"Location": "/end"}))
    async with outbound_client([web.door], max_bytes=100_000) as client:
        with pytest.raises(ResponseTooLarge):
            await client.get(url, follow_redirects=True)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "GZIP"])
async def test_sec_73_a_bomb_is_cut_while_it_is_unpacked(web: WebServer, encoding: str) -> None:
    pack = zlib.compress if encoding == "deflate" else gzip.compress
    bomb = pack(b"\0" * 50_000_000)
    tracemalloc.start()

    await too_large(web, Reply(body=bomb, headers={"Content-Encoding": encoding}))

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


async def test_sec_73_bytes_that_unpack_to_nothing_count_too(web: WebServer) -> None:
    packer = zlib.compressobj(wbits=31)
    start = packer.compress(b"x") + packer.flush(zlib.Z_FULL_FLUSH)
    nothing = b"\x00\x00\x00\xff\xff" * 2000

    async def body() -> AsyncIterator[bytes]:
        yield start
        async for piece in endless(nothing):
            yield piece

    await too_large(web, Reply(body=body(), headers={"Content-Encoding": "gzip"}))


@pytest.mark.parametrize("encoding", ["zstd", "br", "gzip, gzip, zstd", "gzip;q=1"])
async def test_sec_73_only_what_was_asked_for_is_unpacked(web: WebServer, encoding: str) -> None:
    url = web.on("/", Reply(body=b"hello", headers={"Content-Encoding": encoding}))
    async with outbound_client([web.door]) as client:
        with pytest.raises(httpx.DecodingError):
            await client.get(url)

    assert web.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("pieces", [1, 7, 1000])
async def test_packed_bodies_arrive_whole(web: WebServer, pieces: int) -> None:
    text = "".join(f"line {number}\n" for number in range(20_000))
    packed = gzip.compress(text.encode())

    async def body() -> AsyncIterator[bytes]:
        step = len(packed) // pieces + 1
        for start in range(0, len(packed), step):
            yield packed[start : start + step]

    url = web.on("/", Reply(body=body(), headers={"Content-Encoding": "gzip"}))
    async with outbound_client([web.door]) as client:
        answer = await client.get(url)

    assert answer.text == text
    assert "content-encoding" not in answer.headers


async def test_broken_compression_is_an_error(web: WebServer) -> None:
    url = web.on("/", Reply(body=b"hello", headers={"Content-Encoding": "gzip"}))
    async with outbound_client([web.door]) as client:
        with pytest.raises(httpx.DecodingError):
            await client.get(url)


@pytest.mark.parametrize(
    "header", [b"X: y\r\n" * 100_000, b"X: " + b"y" * 1_000_000 + b"\r\n"], ids=["many", "long"]
)
async def test_sec_73_too_many_or_long_headers_are_an_error(web: WebServer, header: bytes) -> None:
    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n")
        await writer.drain()

    url = web.on("/", Raw(answer))
    async with outbound_client([web.door]) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(url)


async def test_sec_73_a_server_that_drips_meets_the_caller_s_time_limit(web: WebServer) -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b"."
            await asyncio.sleep(0)

    url = web.on("/", Reply(body=drip()))
    async with outbound_client([web.door]) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.get(url)


async def test_sec_73_a_silent_server_meets_the_client_s_time_limit(web: WebServer) -> None:
    async def silence(_: Request, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    url = web.on("/", Raw(silence))
    async with outbound_client([web.door], timeout=0.05) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(url)


@pytest.mark.parametrize("packed", [False, True])
async def test_a_stream_is_passed_on_piece_by_piece(web: WebServer, packed: bool) -> None:
    read = asyncio.Event()
    packer = zlib.compressobj(wbits=31)

    def wire(text: bytes) -> bytes:
        return packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH) if packed else text

    async def tokens() -> AsyncIterator[bytes]:
        yield wire(b"first")
        await read.wait()
        yield wire(b"second")

    url = web.on("/", Reply(body=tokens(), headers={"Content-Encoding": "gzip"} if packed else {}))
    seen = []
    async with outbound_client([web.door]) as client, client.stream("GET", url) as answer:
        async for piece in answer.aiter_bytes():
            seen.append(piece)
            read.set()

    assert seen == [b"first", b"second"]


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    return


@pytest.mark.usefixtures("proxies")
async def test_proxies_of_the_environment_are_not_used(web: WebServer) -> None:
    url = web.on("/", Reply(204))
    async with outbound_client([web.door]) as client:
        assert (await client.get(url)).status_code == 204


async def test_no_cookie_is_kept_for_another_request(web: WebServer) -> None:
    url = web.on("/", Reply(headers={"Set-Cookie": "session=hunter2"}))
    async with outbound_client([web.door]) as client:
        answers = [await client.get(url) for _ in range(2)]

    assert answers[0].cookies["session"] == "hunter2"
    assert "cookie" not in web.requests[1].headers


@pytest.mark.parametrize(
    ("url", "reason"),
    [("http://models.internal:1/", "nothing answers there"), ("http://nowhere.example/", "does not resolve")],
)
async def test_failed_connections_do_not_tell_where_a_name_leads(url: str, reason: str) -> None:
    async with outbound_client(["models.internal"], resolver=Names()) as client:
        with pytest.raises(httpx.ConnectError, match=reason) as failed:
            await client.get(url + "?api_key=hunter2")

    assert "127.0.0.1" not in str(failed.value) and "hunter2" not in str(failed.value)


async def test_the_openai_client_does_not_repeat_what_was_refused() -> None:
    names = Names()
    async with outbound_client([], resolver=names) as client:
        model = openai.AsyncOpenAI(
            api_key="none", base_url="http://db.internal/v1", http_client=client, max_retries=2
        )
        with pytest.raises(UrlNotAllowed):
            await model.models.list()

    assert names.asked == ["db.internal"]


async def test_the_openai_client_reaches_an_allowed_host(web: WebServer) -> None:
    web.on("/v1/models", reply_json({"object": "list", "data": [{"id": "m", "object": "model"}]}))
    async with outbound_client([web.door]) as client:
        model = openai.AsyncOpenAI(api_key="none", base_url=web.url("/v1"), http_client=client)
        models = await model.models.list()

    assert [each.id for each in models.data] == ["m"]
