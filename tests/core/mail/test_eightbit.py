"""8-bit content in 7 bits: every part says the same as before, and what must not be touched is not."""

from __future__ import annotations

from collections.abc import Callable
from email import message_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.core.mail.eightbit import MAX_DEPTH, MAX_PARTS, SLICE, seven

HEAD = b"From: a@b.test\r\nMIME-Version: 1.0\r\n"
MIXED = HEAD + b'Content-Type: multipart/mixed; boundary="=_x"\r\n'
UMLAUTS = "gr\u00fc\u00dfe in einer zeile, die l\u00e4nger ist als in quoted-printable erlaubt\r\n".encode()


def converted(content: bytes) -> bytes:
    return b"".join(seven(content).pieces)


def parts(content: bytes) -> list[tuple[str, object]]:
    """Kind and decoded content of each part, as another program reads them."""
    return [
        (part.get_content_type(), part.get_payload(decode=True))
        for part in message_from_bytes(content).walk()
    ]


EIGHT = b"Content-Transfer-Encoding: 8bit\r\n"
FIRST = b"\r\n--=_x\r\n"
TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
MESSAGES = {
    "one text": HEAD + TEXT + EIGHT + b"\r\n" + UMLAUTS,
    "one text, said to be binary": HEAD + TEXT + b"content-transfer-ENCODING:\r\n BINARY\r\n\r\n" + UMLAUTS,
    "one text of nothing else": HEAD + TEXT + b"\r\n" + b"\xd0\xb6" * 500 + b"\r\n",
    "one text without an end of its line": HEAD + TEXT + b"\r\n" + b"x" * 90 + UMLAUTS[:-2],
    "blanks at ends of lines": HEAD + TEXT + b"\r\nx \r\n\t\r\n" + UMLAUTS + b". \r\n.\r\n",
    "one line over slices": HEAD + TEXT + b"\r\n" + b"x" * 2 * SLICE + UMLAUTS,
    "lines over slices": HEAD + TEXT + b"\r\n" + (b"x" * 70 + b"\r\n") * (SLICE // 30) + UMLAUTS * 3,
    "no text over slices": HEAD + b"Content-Type: image/x\r\n\r\n" + b"\xff\xd8x" * SLICE,
    "no MIME": b"From: a@b.test\r\nSubject: x\r\n\r\n" + UMLAUTS,
    "a mixed one": MIXED + EIGHT + b"\r\nwords before\r\n--=_x\r\n" + TEXT + b"\r\n" + UMLAUTS
    + b"--=_x \t\r\nContent-Type: image/png\r\nX: y\r\n\r\n\x89PNG\xff\r\n--=_x\r\n\r\n" + UMLAUTS
    + b"--=_xx\r\n--=_x\r\n\r\nplain\r\n\r\n--=_x--\r\nwords behind\r\n--=_x\r\n\r\nmore\r\n",
    "parts without an end": MIXED + FIRST + TEXT + b"\r\n" + UMLAUTS,
    "parts in parts": MIXED + FIRST + b"Content-Type: multipart/alternative; boundary=in\r\n\r\n--in\r\n\r\n"
    + UMLAUTS + b"--in\r\nContent-Type: text/html\r\n\r\n" + UMLAUTS + b"--in--\r\n--=_x--\r\n",
    "a message in it": MIXED + FIRST + b"Content-Type: message/rfc822\r\n" + EIGHT + b"\r\n"
    + HEAD + TEXT + b"\r\n" + UMLAUTS + b"\r\n--=_x--\r\n",
    "a digest": MIXED.replace(b"mixed", b"digest") + FIRST + b"\r\n" + HEAD + TEXT + b"\r\n" + UMLAUTS
    + b"\r\n--=_x--\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_every_part_says_what_it_said(name: str) -> None:
    content = MESSAGES[name]
    made = seven(content)
    result = b"".join(made.pieces)
    assert made.left == ""
    assert result.isascii()
    assert parts(result) == parts(content)
    assert max(map(len, result.split(b"\r\n"))) <= 78
    assert result.count(b"\n") == result.count(b"\r\n") == result.count(b"\r")
    assert b"8bit" not in result.lower()
    assert b"BINARY" not in result
    assert seven(result) == ([result], "")


def test_what_is_no_mime_is_made_some() -> None:
    known = b"From: a@b.test\r\nSubject: x\r\n"
    made = converted(known + b"\r\n" + UMLAUTS)
    assert made.startswith(
        known + b"Content-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    )
    assert b"charset=unknown-8bit\r\n\r\n" in converted(known + b"\r\n" + UMLAUTS + b"\xff\r\n")


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (b"DKIM-Signature: v=1\r\n" + HEAD + b"\r\n" + UMLAUTS, "a message with a DKIM-Signature"),
        (b"dkim-signature : v=1\r\ndkim-signature : v=1\r\n\r\n\xff", "a message with a DKIM-Signature"),
        (HEAD + b"Content-Type: multipart/signed; boundary=a\r\n\r\n--a\r\n\r\n\xff\r\n--a--\r\n",
         "a part that is signed or encrypted"),
        (HEAD + b"Content-Type: Multipart/Encrypted; boundary=a\r\n\r\n--a\r\n\r\n\xff\r\n--a--\r\n",
         "a part that is signed or encrypted"),
        (HEAD + b"Content-Type: message/partial\r\n\r\n\xff", "a part of a kind that is never encoded"),
        (HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n\xff", "a part that cannot be understood"),
        (HEAD + TEXT + TEXT + b"\r\n\xff", "a part that cannot be understood"),
        (HEAD + b"Content-Type: multi part\r\n\r\n--a\r\n\r\n\xff", "a part that cannot be understood"),
        (HEAD + b"Content-Type: multipart/mixed\r\n\r\n\xff", "a multipart without parts"),
        (HEAD + b"Content-Type: multipart/x; boundary*0=a\r\n\r\n--a\r\n\xff", "a multipart without parts"),
        (MIXED + b"\r\n\xff\r\n--=_x\r\n\r\nx\r\n--=_x--\r\n", "what stands outside of parts"),
        (MIXED + b"\r\n--=_x\r\n\r\nx\r\n--=_x--\r\n\xff", "what stands outside of parts"),
        (HEAD + b"Subject: gr\xc3\xbc\xc3\x9fe\r\n\r\nplain\r\n", "header fields"),
        (b"DKIM-Signature: v=1\r\n" + HEAD + b"\r\nplain\r\n", ""),
        (b"", ""),
        (HEAD, ""),
    ],
)  # fmt: skip
def test_what_an_encoding_would_break_is_left_and_told(content: bytes, left: str) -> None:
    made = seven(content)
    assert b"".join(made.pieces) == content
    assert made.left == left


def test_beside_what_is_left_the_others_are_converted() -> None:
    sealed = b"Content-Type: multipart/signed; boundary=a\r\n\r\n--a\r\n\r\n\xff\r\n--a--\r\n"
    content = (
        MIXED + b"Content-Transfer-Encoding: 8bit\r\n\r\n--=_x\r\n" + sealed + b"--=_x\r\n\r\n" + UMLAUTS
    )
    made = seven(content + b"--=_x--\r\n")
    result = b"".join(made.pieces)
    assert made.left == "a part that is signed or encrypted"
    assert sealed in result
    assert UMLAUTS not in result
    assert b"\r\nContent-Transfer-Encoding: 8bit\r\n" in result  # as a whole it has 8 bits still


ENDLESS: dict[str, Callable[[int], bytes]] = {
    "lines": lambda n: HEAD + TEXT + b"\r\n" + b"\xff\r\n" * (n // 3),
    "parts": lambda n: MIXED + b"\r\n" + b"--=_x\r\n\r\n\xff\r\n" * (n // 12),
    "nearly parts": lambda n: MIXED + b"\r\n" + b"\r\n--=_x\xff" * (n // 8),
    "blanks behind a boundary": lambda n: MIXED + b"\r\n--=_x" + b" " * n + b"\xff",
    "depth": lambda n: b"Content-Type: multipart/x; boundary=a\r\n\r\n--a\r\n" * (n // 50) + b"\xff",
    "messages in messages": lambda n: b"Content-Type: message/rfc822\r\n\r\n" * (n // 33) + b"\xff",
    "a kind": lambda n: HEAD + b"Content-Type: " + b"a" * n + b"\r\n\r\n\xff",
    "boundaries": lambda n: b"Content-Type: multipart/x" + b"; boundary=" * (n // 11) + b"\r\n\r\n\xff",
    "blanks": lambda n: HEAD + b"Content-Type: multipart/x;" + b" " * n + b"\r\n\r\n\xff",
}  # fmt: skip


@pytest.mark.parametrize("shape", ENDLESS)
def test_the_work_grows_with_the_octets_and_no_faster(shape: str) -> None:
    """Quadratic work on megabytes would take minutes, and the suite's time-out would end it."""
    made = seven(ENDLESS[shape](2**21))
    assert len(made.pieces) < 8 * MAX_PARTS * MAX_DEPTH
    assert made.left or all(piece.isascii() for piece in made.pieces)


PIECES = st.lists(
    st.sampled_from([
        MIXED, HEAD, TEXT, b"\r\n", b"--=_x\r\n", b"--=_x--\r\n", b"--=_x", UMLAUTS, b"\xff", b"=\r\n", b"x ",
        b"Content-Type: message/rfc822\r\n", EIGHT, b"DKIM-Signature: x\r\n",
    ]),
    max_size=20,
)  # fmt: skip


@given(PIECES)
def test_whatever_comes_is_converted_or_told(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    made = seven(content)
    result = b"".join(made.pieces)
    assert result.isascii() or made.left
    assert not content.isascii() or result == content
    again = seven(result)
    assert (b"".join(again.pieces), again.left) == (result, made.left)


@given(st.binary())
def test_any_octets_come_through(content: bytes) -> None:
    for octets in (content, MIXED + content, HEAD + b"\r\n" + content):
        seven(octets)
