"""The page reader against a real server on 127.0.0.1, through the guarded client and the real reader."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowserver.outbound import outbound_client
from nodes.contract import NodeError, RunContext
from nodes.reading import Reader
from nodes.web.web_scraper import NODE, Inputs, Outputs, hosts, run, tool
from nodes.web_pages import addresses_in
from tests import files
from tests.nodes.contexts import context
from tests.nodes.settings import assert_examples_fit, configured, told_of
from tests.web_server import Reply, WebServer, redirect
from tests.workshop import reader

HTML = {"Content-Type": "text/html; charset=utf-8"}
WORDS = "Words that make a page long enough. " * 5


def page(text: str, title: str = "A page") -> Reply:
    return Reply(body=f"<title>{title}</title><body><p>{text}</p></body>".encode(), headers=HTML)


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with WebServer() as server:
        yield server


@pytest.fixture
async def ctx(web: WebServer) -> AsyncIterator[RunContext]:
    async with outbound_client([web.door]) as http, reader() as made:
        yield context(http=http, doors={Reader: made})


async def scrape(ctx: RunContext, *arrived: Any, **drawn: Any) -> Outputs:
    return await run(configured(NODE, **{"retry_attempts": 0} | drawn), Inputs(arrived), ctx)


async def fails(ctx: RunContext, *arrived: Any, **drawn: Any) -> NodeError:
    with pytest.raises(NodeError) as failed:
        await scrape(ctx, *arrived, **drawn)
    return failed.value


def texts(outputs: Outputs) -> list[str]:
    return [each["page_content"] for each in outputs.documents]


def test_its_examples_fit() -> None:
    assert_examples_fit(NODE)


async def test_pages_become_documents_in_the_order_of_their_addresses(
    web: WebServer, ctx: RunContext
) -> None:
    urls = [web.on(f"/{n}", page(f"Page {n}. {WORDS}", f"Title {n}")) for n in range(8)]

    outputs = await scrape(ctx, urls=urls, max_concurrent=3)

    assert [text[:7] for text in texts(outputs)] == [f"Page {n}." for n in range(8)]
    facts = outputs.documents[2]["metadata"]
    assert (facts["source"], facts["domain"], facts["title"]) == (urls[2], "127.0.0.1", "Title 2")
    assert facts["content_length"] == len(texts(outputs)[2])
    assert outputs.errors == []
    assert outputs.stats["documents"] == 8


async def test_defect_15_a_list_as_the_editor_saves_it_is_read(web: WebServer, ctx: RunContext) -> None:
    one, two = web.on("/1", page(f"One {WORDS}")), web.on("/2", page(f"Two {WORDS}"))

    for urls in ([one, two], f"{one}\n{two}", f"{one}, {two}", f"{one},{two}", json.dumps([one, two])):
        assert [text[:3] for text in texts(await scrape(ctx, urls=urls))] == ["One", "Two"]


async def test_addresses_arrive_from_a_step_before(web: WebServer, ctx: RunContext) -> None:
    url = web.on("/1", page(WORDS))

    for arrived in (
        url,
        [url],
        {"urls": [url]},
        {"url": url},
        {"link": url},
        [{"metadata": {"source": url}}],
    ):
        assert len((await scrape(ctx, arrived)).documents) == 1
    assert len((await scrape(ctx, "start", urls=url)).documents) == 1


async def test_quotes_brackets_and_words_of_programs_stay_in_the_prose(
    web: WebServer, ctx: RunContext
) -> None:
    prose = 'Return it, if "you" can; for (some) [reason] {it} won\'t. let var const function while. ' * 3
    url = web.on("/", page(prose))

    assert texts(await scrape(ctx, urls=url)) == [prose.strip()]


async def test_what_selectors_name_is_left_out(web: WebServer, ctx: RunContext) -> None:
    body = f"<nav>MENU</nav><div class=ad>BUY</div><p>{WORDS}</p><footer>END</footer>"
    url = web.on("/", Reply(body=body.encode(), headers=HTML))

    assert texts(await scrape(ctx, urls=url, remove_selectors=".ad,nav,footer")) == [WORDS.strip()]
    assert "MENU" not in texts(await scrape(ctx, urls=url, remove_selectors=""))[0]
    assert "MENU" in texts(await scrape(ctx, urls=url, remove_selectors="none", only_article="false"))[0]
    assert (await fails(ctx, urls=url, remove_selectors="p[[")).code == "bad_selector"


async def test_one_page_that_fails_loses_no_other(web: WebServer, ctx: RunContext) -> None:
    good = web.on("/good", page(WORDS))
    gone = web.url("/gone?token=CNRY")
    short = web.on("/short", page("too short"))
    binary = web.on("/image", Reply(body=b"\x89PNG\r\n\x1a\n", headers={"Content-Type": "image/png"}))
    large = web.on("/large", Reply(body=b"x" * 200_000, headers={"Content-Type": "text/plain"}))

    outputs = await scrape(ctx, urls=[gone, short, good, binary, large, "http://10.0.0.1/"], max_size_mb=0.1)

    assert len(outputs.documents) == 1
    codes = {each["url"].rpartition("/")[2].partition("?")[0]: each["code"] for each in outputs.errors}
    assert codes == {
        "gone": "http_status",
        "short": "too_short",
        "image": "unsupported_type",
        "large": "too_large",
        "": "url_not_allowed",
    }
    assert "CNRY" not in str(outputs)


async def test_no_document_at_all_fails_the_step_and_says_why(web: WebServer, ctx: RunContext) -> None:
    several = await fails(ctx, urls=[web.url("/a"), web.url("/b")])
    single = await fails(ctx, urls=web.url("/a"))

    assert several.code == "no_documents"
    assert several.message.count("answered 404 Not Found") == 2
    assert (single.code, single.is_final) == ("http_status", True)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://localhost:1/",
        "http://user:CNRY@192.168.0.1/",
        "http://127.0.0.1:1/",
    ],
)
async def test_defect_18_a_page_inside_the_house_is_not_read(ctx: RunContext, url: str) -> None:
    failed = await fails(ctx, urls=[url])

    assert failed.code == "url_not_allowed"
    assert "CNRY" not in failed.message


async def test_defect_18_nor_by_a_redirect_nor_by_robots_txt(web: WebServer, ctx: RunContext) -> None:
    by_page = web.on("/", redirect("http://169.254.169.254/"))
    assert (await fails(ctx, urls=by_page)).code == "url_not_allowed"

    web.on("/robots.txt", redirect("http://10.0.0.1/robots.txt"))
    web.on("/page", page(WORDS))
    assert (await fails(ctx, urls=web.url("/page"))).code == "url_not_allowed"


@pytest.mark.parametrize(
    "scheme", ["file:///etc/passwd", "ftp://example.com/x", "gopher://example.com", "data:text/html,x"]
)
async def test_other_schemes_are_refused(ctx: RunContext, scheme: str) -> None:
    with pytest.raises(NodeError):
        await run(NODE.config(urls=scheme), Inputs(), ctx)


async def test_what_robots_txt_keeps_robots_from_is_left_alone(web: WebServer, ctx: RunContext) -> None:
    web.on("/robots.txt", Reply(body=b"User-agent: *\nDisallow: /private\n"))
    private, public = web.on("/private/x", page(WORDS)), web.on("/public", page(WORDS))
    sneaky = web.on("/sneaky", redirect("/private/x"))

    outputs = await scrape(ctx, urls=[private, public, sneaky])

    assert len(outputs.documents) == 1
    assert [each["code"] for each in outputs.errors] == ["robots", "robots"]
    assert [each.path for each in web.requests].count("/robots.txt") == 1
    assert len((await scrape(ctx, urls=private, respect_robots=False)).documents) == 1


@pytest.mark.parametrize(("status", "may"), [(404, True), (403, True), (500, False), (503, False)])
async def test_a_site_whose_robots_txt_cannot_be_had(
    web: WebServer, ctx: RunContext, status: int, may: bool
) -> None:
    web.on("/robots.txt", Reply(status))
    url = web.on("/page", page(WORDS))

    if may:
        assert (await scrape(ctx, urls=url)).documents
    else:
        assert (await fails(ctx, urls=url)).code == "robots"


@pytest.mark.parametrize(
    "robots",
    [b"\x00\xff" * 1000, b"User-agent\n" * 50_000, b"Disallow: " + b"/%41" * 10_000, b"<html>no</html>"],
)
async def test_junk_in_robots_txt_harms_nobody(web: WebServer, ctx: RunContext, robots: bytes) -> None:
    web.on("/robots.txt", Reply(body=robots))
    began = time.monotonic()

    await scrape(ctx, urls=web.on("/page", page(WORDS)))

    assert time.monotonic() - began < 5


async def test_files_behind_addresses_are_read_too(web: WebServer, ctx: RunContext) -> None:
    pdf = web.on("/a", Reply(body=files.pdf("Of a PDF"), headers={"Content-Type": "application/pdf"}))
    text = web.on("/b.txt", Reply(body=b"plain", headers={"Content-Type": "application/octet-stream"}))

    outputs = await scrape(ctx, urls=[pdf, text], min_content_length=1)

    assert texts(outputs) == ["Of a PDF", "plain"]
    assert [each["metadata"]["format"] for each in outputs.documents] == ["pdf", "txt"]


async def test_it_says_who_it_is_and_tries_again(web: WebServer, ctx: RunContext) -> None:
    url = web.on("/", Reply(503, headers={"Retry-After": "0"}), page(WORDS))

    await scrape(ctx, urls=url, user_agent="me/1.0", retry_attempts=1, respect_robots=False)

    assert [request.headers["user-agent"] for request in web.requests] == ["me/1.0", "me/1.0"]
    assert (await fails(ctx, urls=url, user_agent="a\r\nX-Evil: 1")).code == "bad_header"


async def test_nothing_in_a_page_is_filled_in_again(web: WebServer, ctx: RunContext) -> None:
    payload = "{{ 7*7 }} ${7*7} {x.__class__} {{#with}} {% raw %} " * 4

    assert texts(await scrape(ctx, urls=web.on("/", page(payload)))) == [payload.strip()]


@pytest.mark.parametrize("nothing", [None, "", [], {}, 7, "hello there", {"x": "y"}, [None]])
async def test_no_address_is_said_to_be_none(ctx: RunContext, nothing: Any) -> None:
    assert (await fails(ctx, nothing)).code == "missing_value"


async def test_too_many_addresses_are_refused(ctx: RunContext) -> None:
    assert (await fails(ctx, urls=[f"https://example.com/{n}" for n in range(501)])).code == "too_large"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("example.com", ["example.com"]),
        ("a.com,b.org\nc.net/x,y", ["a.com", "b.org", "c.net/x,y"]),
        ("see https://a.com/x, please", ["https://a.com/x"]),
        ("https://a.com/p?q=1,2#f", ["https://a.com/p?q=1,2#f"]),
        ("https://a.com,https://b.com", ["https://a.com", "https://b.com"]),
        ("hello world", []),
        ({"urls": "a.com", "link": ["b.com"]}, ["a.com", "b.com"]),
        ("<https://a.com>", ["https://a.com"]),
    ],
)
def test_addresses_are_found_in_what_people_write(given: Any, found: list[str]) -> None:
    assert list(addresses_in(given)) == found


def test_a_drawing_is_told_of_what_is_no_address() -> None:
    assert told_of(NODE, urls="hello there")[0][0] == "error"
    assert told_of(NODE, urls=["https://example.com", "no"])[0][2].startswith("'no' is no address")
    assert told_of(NODE, urls="{{ input.url }}") == []
    assert hosts(NODE.config(urls="example.com/x\nhttps://example.org")) == ["example.com", "example.org"]


async def test_an_agent_reads_the_page_that_it_chooses(web: WebServer, ctx: RunContext) -> None:
    made = tool(NODE.config(retry_attempts=0), ctx)
    url = web.on("/", page("Short."))

    assert made.name == "read_web_page"
    assert await made.ainvoke({"url": url}) == "Short."
    assert "not allowed" in await made.ainvoke({"url": "http://10.0.0.1/"})
    assert "404" in await made.ainvoke({"url": web.url("/gone")})


async def test_a_page_of_a_hundred_thousand_levels_is_refused_soon(web: WebServer, ctx: RunContext) -> None:
    url = web.on("/", Reply(body=b"<div>" * 100_000 + WORDS.encode(), headers=HTML))
    began = time.monotonic()

    assert (await fails(ctx, urls=url)).code == "too_complex"
    assert time.monotonic() - began < 5
