"""Bytes of files and answers as the texts that their writers meant."""

from __future__ import annotations

import time

import pytest

from nodes.encodings import Decoded, declared_in, decoded

CHINESE = "产品,价格,说明\n苹果,五元,红色的水果很好吃\n香蕉,三元,黄色的水果也很好吃\n"


@pytest.mark.parametrize(
    ("text", "encoding", "assumed"),
    [
        (CHINESE, "gbk", "gb18030"),
        ("姓名,年龄\n张三,25\n李四,30\n", "gb2312", "gb18030"),
        ("名称: apple\n价格: 5\n", "gbk", "gb18030"),
        ("今天天氣很好,我們去公園吧", "big5", "big5"),
        ("日本語のテキストです。今日はいい天気", "shift_jis", "cp932"),
        ("日本語のテキストです。今日はいい天気", "euc_jp", "euc_jp"),
        ("안녕하세요 반갑습니다", "euc_kr", "cp949"),
        ("Привет, как дела?", "cp1251", "cp1251"),
        ("Καλημέρα κόσμε", "cp1253", "cp1253"),
        ("Name;Größe\r\nStraße;10\r\nFuß;größer", "cp1252", "cp1252"),
        ("L'été dernier, “nous étions” – à la plage", "cp1252", "cp1252"),
        ("Hyvää päivää, jäääär", "latin-1", "cp1252"),
    ],
)
def test_what_nothing_declares_is_recognised_and_said_to_be_assumed(
    text: str, encoding: str, assumed: str
) -> None:
    assert decoded(text.encode(encoding)) == Decoded(text, assumed)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_is_read_without_its_mark(encoding: str) -> None:
    assert decoded(CHINESE.encode(encoding)) == Decoded(CHINESE)


def test_what_is_declared_counts_where_it_can_be() -> None:
    russian = "Привет".encode("koi8-r")

    assert decoded(russian, "KOI8-R") == Decoded("Привет")
    assert decoded("é".encode(), "iso-8859-1") == Decoded("é")
    assert decoded("é".encode(), "iso-8859-1", trust=True) == Decoded("Ã©")
    assert decoded("ab".encode("utf-16-le"), "utf-16le") == Decoded("ab")
    assert decoded("“x”".encode("cp1252"), "iso-8859-1") == Decoded("“x”")
    assert decoded(b"x", "zlib_codec") == decoded(b"x", "bogus-42") == Decoded("x")


@pytest.mark.parametrize(
    "head",
    [
        '<meta charset="windows-1251">',
        "<META http-equiv=Content-Type content='text/html; charset = windows-1251'>",
        '<?xml version="1.0" encoding="windows-1251"?>',
    ],
)
def test_markup_declares_its_encoding_itself(head: str) -> None:
    page = f"{head}<p>Привет".encode("cp1251")

    assert decoded(page, is_markup=True, trust=True).text == f"{head}<p>Привет"
    assert decoded(page, "koi8-r", is_markup=True, trust=True).text != f"{head}<p>Привет"


def test_a_page_that_says_utf_16_in_ascii_is_none() -> None:
    assert declared_in(b'<meta charset="utf-16">') == "utf-8"


def test_bytes_of_no_text_are_read_in_time() -> None:
    began = time.monotonic()

    for data in (b"\xff" * 5_000_000, bytes(range(256)) * 20_000, b"<meta " * 500_000 + b"\xe9"):
        decoded(data, is_markup=True)

    assert time.monotonic() - began < 10
