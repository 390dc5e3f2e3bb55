"""Bytes as text: by their mark, as they are declared, as UTF-8, or as what they most likely are."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_WESTERN = "cp1252"
_GUESSED = ("gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1251", "koi8_r", "cp1253", _WESTERN)
"""Encodings that are recognised; of those for Western and Central European letters only one, as these differ
in too few of them."""
_EXAMINED = 4_000
"""Bytes of lines with such letters that are looked at."""
# Python has codecs by other names that unpack zip files, or take quadratic time.
_CHARSETS = ("ascii", "big5", "cp", "euc", "gb", "hz", "iso", "johab", "koi8", "mac", "shift", "tis", "utf")
_AS_BROWSERS_DO = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
"""Names that pages use for what is a little more than they say."""
_BY_SEVEN_BITS = ("utf-16", "utf-32", "utf-7", "hz", "iso2022")
"""Encodings whose bytes may all be those of ASCII, too."""
_DECLARED = re.compile(
    rb"<meta[^>]{0,200}charset\s{0,9}=\s{0,9}[\"']?([\w.:-]{1,40})"
    rb"|\A\s{0,99}<\?xml[^>]{1,200}encoding\s{0,9}=\s{0,9}[\"']([\w.:-]{1,40})",
    re.I,
)
_OUTSIDE_ASCII = re.compile(rb"[\x80-\xff]")
_RUN = re.compile(rb"[\x80-\xff]{3,}")
_FREQUENT = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多"
    "经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性"
    "知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西月话合回特代内信表化老给世位次度"
    "门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活更别打女变四总何电数安少报才结反受目太量再感建务做接"
    "必场件计管期市直资命山金指许统区保至形社便空决治展科五基书非则听白界达光放强即难权思完设式色路记南品住告类求据程北边张该交"
    "规万取格望术领共确传师观清今切院让识候带导争运价称号码元地址电话备注说明"
)
"""Characters that make up half of most texts in Chinese, and a tenth of what other bytes look like."""


class Decoded(NamedTuple):
    text: str
    assumed: str | None = None
    """The encoding, where nothing said it and it is not UTF-8."""


def decoded(data: bytes, charset: str = "", *, is_markup: bool = False, trust: bool = False) -> Decoded:
    """`data` as text, without a byte order mark.

    Markup may declare its encoding itself, where `charset` does not. UTF-8 is tried before what is declared,
    as that is often wrong, unless it is to be trusted.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return Decoded(data.decode(encoding, "replace").removeprefix("\ufeff"))
    declared = known(charset) or (known(declared_in(data)) if is_markup else None)
    if declared and (trust or declared.startswith(_BY_SEVEN_BITS)):
        return Decoded(data.decode(declared, "replace").removeprefix("\ufeff"))
    try:
        return Decoded(data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    if declared and declared != "utf-8":
        return Decoded(data.decode(declared, "replace"))
    assumed = guessed(data)
    return Decoded(data.decode(assumed, "replace"), assumed)


def known(charset: str) -> str | None:
    """The name of the codec for a declared encoding; `None` for one that is not known."""
    try:
        name = codecs.lookup(charset.strip(" \"'")).name
    except (LookupError, ValueError):
        return None
    return _AS_BROWSERS_DO.get(name, name) if name.startswith(_CHARSETS) else None


def declared_in(data: bytes) -> str:
    """The encoding that a page or an XML document says it has."""
    found = _DECLARED.search(data[:2048])
    name = (found[1] or found[2]).decode() if found else ""
    # It was read as bytes of ASCII, so it is not this one, whatever it says.
    return "utf-8" if name.lower().startswith("utf-16") else name


def charset_of(media_type: str) -> str:
    """The `charset` of a media type; empty where there is none."""
    return media_type.lower().partition("charset=")[2].split(";")[0].strip(" \"'")


def guessed(data: bytes) -> str:
    """The most likely encoding of bytes that are not UTF-8."""
    from charset_normalizer import from_bytes  # noqa: PLC0415  few need it

    sample = b""
    for line in data[:1_000_000].splitlines():
        if _OUTSIDE_ASCII.search(line):
            sample += line[:_EXAMINED] + b"\n"
        if len(sample) > _EXAMINED:
            break
    # Accents stand alone, or by two, between letters of ASCII; letters of other scripts stand together.
    if 2 * sum(map(len, _RUN.findall(sample))) <= len(_OUTSIDE_ASCII.findall(sample)):
        return _WESTERN
    if _is_chinese(sample):
        return "gb18030"
    found = from_bytes(sample, cp_isolation=list(_GUESSED)).best()
    return found.encoding if found else _WESTERN


def _is_chinese(sample: bytes) -> bool:
    """Whether `sample` says something in Chinese, read as GB 18030: few texts are too short to tell."""
    try:
        text = sample.decode("gb18030")
    except UnicodeDecodeError:
        return False
    ideographs = [each for each in text if "\u4e00" <= each <= "\u9fff"]
    return sum(each in _FREQUENT for each in ideographs) > 0.3 * len(ideographs)
