"""The formats of JSON Schema by their RFCs, the same for every draft. Pure; each takes a string.

A format that is none of these is not checked. docs/scoring.md names what differs from the official test suite.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Mapping
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from unicodedata import bidirectional, normalize

from structbench.scoring.patterns import compiled

_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_TIME = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))")
_N = "[0-9]+"
_DURATION = re.compile(
    rf"P(?:{_N}W|(?=[0-9T])(?:{_N}Y(?:{_N}M(?:{_N}D)?)?|{_N}M(?:{_N}D)?|{_N}D)?"
    rf"(?:T(?:{_N}H(?:{_N}M(?:{_N}S)?)?|{_N}M(?:{_N}S)?|{_N}S))?)"
)
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_POINTER = r"(?:/(?:[^~/]|~[01])*)*"
_JSON_POINTER = re.compile(_POINTER, re.DOTALL)
_RELATIVE_POINTER = re.compile(rf"(?:0|[1-9][0-9]*)(?:#|{_POINTER})", re.DOTALL)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_DOTS = re.compile("[.。．｡]")
_UCSCHAR = "\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef\U00010000-\U000efffd"
"""RFC 3987's characters beyond ASCII (ignoring its gaps at the end of each plane)."""
_PRIVATE = "\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd"
_PERCENT = "%[0-9A-Fa-f]{2}"
_VARIABLE = rf"(?:[A-Za-z0-9_]|{_PERCENT})(?:\.?(?:[A-Za-z0-9_]|{_PERCENT}))*(?::[1-9][0-9]{{0,3}}|\*)?"
_TEMPLATE = re.compile(
    rf"(?:[!#$&'-;=?-\[\]_a-z~{_UCSCHAR}{_PRIVATE}]|{_PERCENT}|"
    rf"\{{[+#./;?&=,!@|]?{_VARIABLE}(?:,{_VARIABLE})*\}})*"
)
_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]"
_QUOTED = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_LOCAL = re.compile(rf"{_ATOM}+(?:\.{_ATOM}+)*|{_QUOTED}", re.ASCII)
_ANY_LETTER = "[^\x00-\x7f]"
_IDN_LOCAL = re.compile(
    rf"(?:(?a:{_ATOM})|{_ANY_LETTER})+(?:\.(?:(?a:{_ATOM})|{_ANY_LETTER})+)*"
    rf'|"(?:[ !#-\[\]-~]|{_ANY_LETTER}|\\[ -~])*"'
)


@cache
def _resource(more: str, private: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the grammars of RFC 3986 with a scheme and without; ``more``: RFC 3987's additional characters.

    Made when first used: compiling the latter takes 50 ms.
    """
    plain = rf"A-Za-z0-9._~!$&'()*+,;=\-{more}"
    segment, first = (rf"(?:[{plain}:@]|{_PERCENT})", rf"(?:[{plain}@]|{_PERCENT})")
    host = rf"\[(?P<literal>[^\]]*)\]|(?:[{plain}]|{_PERCENT})*"
    authority = rf"//(?:(?:[{plain}:]|{_PERCENT})*@)?(?:{host})(?::[0-9]*)?(?:/{segment}*)*"
    absolute = rf"/(?:{segment}+(?:/{segment}*)*)?"
    tail = rf"(?:\?(?:[{plain}:@/?{private}]|{_PERCENT})*)?(?:\#(?:[{plain}:@/?]|{_PERCENT})*)?"
    return (
        re.compile(rf"[A-Za-z][A-Za-z0-9+.-]*:(?:{authority}|{absolute}|{segment}+(?:/{segment}*)*|){tail}"),
        re.compile(rf"(?:{authority}|{absolute}|{first}+(?:/{segment}*)*|){tail}"),
    )


_FUTURE = re.compile(r"[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+")


def _is_resource(more: str = "", private: str = "", *, relative: bool = False) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        for grammar in _resource(more, private)[: 2 if relative else 1]:
            if (found := grammar.fullmatch(text)) is not None:
                literal = found["literal"]
                return literal is None or _FUTURE.fullmatch(literal) is not None or _is_ipv6(literal)
        return False

    return check


def _is_date(text: str) -> bool:
    found = _DATE.fullmatch(text)
    if found is None:
        return False
    year, month, day = map(int, found.groups())
    return 1 <= month <= 12 and 1 <= day <= monthrange(year or 400, month)[1]  # year 0 is a leap year, as 400 is


def _is_time(text: str) -> bool:
    found = _TIME.fullmatch(text)
    if found is None:
        return False
    hour, minute, second = (int(each) for each in found.groups()[:3])
    sign, off_hour, off_minute = found[4], int(found[5] or 0), int(found[6] or 0)
    if hour > 23 or minute > 59 or off_hour > 23 or off_minute > 59:
        return False
    offset = (off_hour * 60 + off_minute) * (-1 if sign == "-" else 1)
    # A leap second is inserted at the end of a day of UTC.
    return second < 60 or (second == 60 and (hour * 60 + minute - offset) % 1440 == 1439)


def _is_date_time(text: str) -> bool:
    return len(text) > 10 and text[10] in "Tt" and _is_date(text[:10]) and _is_time(text[11:])


def _is_ipv4(text: str) -> bool:
    try:
        return text.isascii() and bool(IPv4Address(text))
    except ValueError:
        return False


def _is_ipv6(text: str) -> bool:
    try:
        return text.isascii() and "%" not in text and bool(IPv6Address(text))
    except ValueError:
        return False


def _is_hostname(text: str) -> bool:
    """RFC 1123, and RFC 5891 for A-labels."""
    labels = text.split(".")
    return len(text) <= 253 and all(map(_is_ascii_label, labels)) and (
        all(label[2:4] != "--" for label in labels) or _is_idn_hostname(text)
    )  # fmt: skip


def _is_ascii_label(label: str) -> bool:
    return _LABEL.fullmatch(label) is not None


def _is_idn_hostname(text: str) -> bool:
    """RFC 5890 to 5893: each label valid by IDNA 2008, all of them if one is written from right to left."""
    import idna

    try:
        plain = [label if label.isascii() else idna.alabel(label).decode() for label in _DOTS.split(text)]
        if sum(map(len, plain)) + len(plain) - 1 > 253 or not all(map(_is_ascii_label, plain)):
            return False
        shown = [idna.ulabel(label) for label in plain]
        for label, unicode in zip(plain, shown, strict=True):
            if label[2:4] == "--" and (unicode.isascii() or idna.alabel(unicode).decode() != label.lower()):
                return False
        if any(not label.isascii() and _is_right_to_left(label) for label in shown):
            return all(idna.check_bidi(label, check_ltr=True) for label in shown)
    except (idna.IDNAError, UnicodeError):
        return False
    return True


def _is_right_to_left(label: str) -> bool:
    return any(bidirectional(letter) in ("R", "AL", "AN") for letter in label)


def _mailbox(local: re.Pattern[str], is_domain: Callable[[str], bool]) -> Callable[[str], bool]:
    """Return the check for RFC 5321's Mailbox (RFC 6531's): its lengths, and an address in brackets."""

    def check(text: str) -> bool:
        name, _, domain = text.rpartition("@")
        if local.fullmatch(name) is None or len(name.encode("utf-8", "replace")) > 64:
            return False
        if domain.startswith("[") and domain.endswith("]"):
            literal = domain[1:-1]
            return _is_ipv6(literal[5:]) if literal[:5].lower() == "ipv6:" else _is_ipv4(literal)
        return is_domain(domain)

    return check


def _is_regex(text: str) -> bool:
    return compiled(text, strict=True) is not None


def _whole(grammar: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: grammar.fullmatch(text) is not None


FORMATS: Mapping[str, Callable[[str], bool]] = {
    "date": _is_date,
    "time": _is_time,
    "date-time": _is_date_time,
    "duration": _whole(_DURATION),
    "email": _mailbox(_LOCAL, _is_hostname),
    "idn-email": _mailbox(_IDN_LOCAL, lambda domain: _is_idn_hostname(normalize("NFC", domain))),
    "hostname": _is_hostname,
    "idn-hostname": _is_idn_hostname,
    "ipv4": _is_ipv4,
    "ipv6": _is_ipv6,
    "uri": _is_resource(),
    "uri-reference": _is_resource(relative=True),
    "iri": _is_resource(_UCSCHAR, _PRIVATE),
    "iri-reference": _is_resource(_UCSCHAR, _PRIVATE, relative=True),
    "uri-template": _whole(_TEMPLATE),
    "uuid": _whole(_UUID),
    "json-pointer": _whole(_JSON_POINTER),
    "relative-json-pointer": _whole(_RELATIVE_POINTER),
    "regex": _is_regex,
}
