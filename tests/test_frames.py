"""Frames both ways, held to websockets' own reading of the RFCs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close as TheirClose
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri
from websockets.utils import apply_mask

from chatd import frames
from chatd.errors import ABNORMAL, INVALID_UTF8, MESSAGE_TOO_BIG, NO_STATUS, PROTOCOL_ERROR, Disconnect
from chatd.frames import Close, Incoming, Message, Parser, Ping, Pong

LIMIT = 1000
MASK = b"\x0a\x0b\x0c\x0d"


def masked(first: int, payload: bytes = b"", *, length: bytes | None = None) -> bytes:
    """A client's frame by hand, so that it may be a wrong one; `length` as it shall stand there."""
    short = bytes((0x80 | len(payload),)) if length is None else length
    return bytes((first,)) + short + MASK + apply_mask(payload, MASK)


def events(parser: Parser, pieces: Iterable[bytes]) -> list[Incoming]:
    return [event for piece in pieces for event in parser.feed(piece)]


def read(*pieces: bytes, limit: int = LIMIT, inflate: bool = False) -> list[Incoming]:
    return events(Parser(limit, inflate=inflate), pieces)


def they_hear(data: bytes, *, deflate: bool = False) -> list[Frame]:
    """What websockets' client makes of our bytes."""
    client = ClientProtocol(parse_uri("ws://localhost/"), state=OPEN)
    if deflate:
        client.extensions = [PerMessageDeflate(True, True, 15, 15)]
    client.receive_data(data)
    assert client.parser_exc is None, client.parser_exc
    return [event for event in client.events_received() if isinstance(event, Frame)]


def they_deflate(payload: bytes) -> bytes:
    return Frame(Opcode.TEXT, payload).serialize(mask=True, extensions=[PerMessageDeflate(True, True, 15, 15)])


# --- going out --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_a_text_of_any_length_is_one_frame_that_a_client_reads(size: int) -> None:
    (frame,) = they_hear(frames.text(b"x" * size))
    assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.TEXT, True, b"x" * size)


def test_binary_ping_and_pong_are_read_as_what_they_are() -> None:
    heard = they_hear(frames.binary(b"\xff") + frames.ping(b"a") + frames.pong(b"b") + frames.ping())
    assert [(frame.opcode, bytes(frame.data)) for frame in heard] == [
        (Opcode.BINARY, b"\xff"),
        (Opcode.PING, b"a"),
        (Opcode.PONG, b"b"),
        (Opcode.PING, b""),
    ]


def test_a_goodbye_carries_its_code_and_reason() -> None:
    (frame,) = they_hear(frames.close(3008, "slow"))
    assert TheirClose.parse(bytes(frame.data)) == TheirClose(3008, "slow")


def test_a_reason_too_long_is_cut_between_two_characters() -> None:
    (frame,) = they_hear(frames.close(4500, "é" * 100))
    assert TheirClose.parse(bytes(frame.data)).reason == "é" * 61


@pytest.mark.parametrize("code", [NO_STATUS.code, ABNORMAL.code])
def test_a_code_that_may_not_be_sent_makes_an_empty_goodbye(code: int) -> None:
    assert frames.close(code, "whatever") == b"\x88\x00"


@pytest.mark.parametrize("kind", [frames.text, frames.binary])
def test_a_deflated_message_is_smaller_and_reads_the_same_for_every_client(kind: Callable[..., bytes]) -> None:
    payload = b'{"push":{"channel":"lobby","pub":{"data":{"text":"hello"}}}}' * 10
    frame = kind(payload, deflate=True)
    assert len(frame) < len(payload) / 2
    for _ in range(2):
        assert bytes(they_hear(frame + frame, deflate=True)[1].data) == payload


def test_what_deflate_would_not_make_shorter_is_left_as_it_is() -> None:
    short = b"x" * (frames.WORTH_DEFLATING - 1)
    assert frames.text(short, deflate=True) == frames.text(short)


# --- coming in: what is right -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, LIMIT])
def test_a_whole_message_in_one_read_is_one_event(size: int) -> None:
    assert read(Frame(Opcode.TEXT, b"x" * size).serialize(mask=True)) == [Message(b"x" * size, text=True)]


def test_fragments_are_joined_and_a_ping_between_them_is_heard_at_once() -> None:
    pieces = [masked(0x01, b"gr"), masked(0x89, b"?"), masked(0x00, b"\xc3"), masked(0x80, b"\xbc\xc3\x9f")]
    assert read(*pieces) == [Ping(b"?"), Message("grüß".encode(), text=True)]


def test_a_deflated_message_is_inflated_whole_or_in_fragments() -> None:
    whole = they_deflate(b"hello " * 50)
    squeezed = apply_mask(whole[6:], whole[2:6])
    cut = masked(0x41, squeezed[:5]) + masked(0x80, squeezed[5:])
    assert read(whole, cut, inflate=True) == [Message(b"hello " * 50, text=True)] * 2


def test_binary_may_be_any_bytes() -> None:
    assert read(masked(0x82, b"\xff\xfe")) == [Message(b"\xff\xfe", text=False)]


def test_a_goodbye_without_a_code_reads_as_1005() -> None:
    assert read(masked(0x88)) == [Close(1005, "")]


def test_what_follows_a_goodbye_is_ignored_in_the_same_read_and_later() -> None:
    parser, more = Parser(LIMIT), masked(0x81, b"still here")
    goodbye = masked(0x88, b"\x03\xe8bye")
    assert events(parser, [goodbye + more, more, b"\xff\xff"]) == [Close(1000, "bye")]


def test_without_a_limit_a_message_may_be_long_deflated_too() -> None:
    payload = b"x" * 200_000
    data = Frame(Opcode.TEXT, payload).serialize(mask=True)
    assert read(data, they_deflate(payload), limit=0, inflate=True) == [Message(payload, text=True)] * 2


messages = st.builds(lambda said: [Frame(Opcode.TEXT, said.encode())], st.text(max_size=150))
binaries = st.builds(lambda data: [Frame(Opcode.BINARY, data)], st.binary(max_size=LIMIT))
controls = st.builds(
    lambda op, data: [Frame(op, data)], st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125)
)


@st.composite
def in_fragments(draw: st.DrawFn) -> list[Frame]:
    """A text in fragments, with pings and pongs between them."""
    data, cuts = draw(st.text(min_size=1, max_size=100)).encode(), draw(st.lists(st.integers(0, 400), max_size=5))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    out: list[Frame] = []
    for number, (begin, end) in enumerate(pairwise(edges)):
        opcode = Opcode.TEXT if number == 0 else Opcode.CONT
        out.append(Frame(opcode, data[begin:end], fin=number == len(edges) - 2))
        if number < len(edges) - 2:
            out += draw(st.just([]) | controls)
    return out


streams = st.lists(messages | binaries | controls | in_fragments(), max_size=6).map(
    lambda parts: list(chain.from_iterable(parts))
)


def as_they_read(stream: list[Frame]) -> Iterator[Incoming]:
    """The events of a stream of websockets' frames."""
    opcode, data = Opcode.TEXT, b""
    for frame in stream:
        if frame.opcode is Opcode.PING:
            yield Ping(bytes(frame.data))
        elif frame.opcode is Opcode.PONG:
            yield Pong(bytes(frame.data))
        else:
            opcode, data = (opcode, data) if frame.opcode is Opcode.CONT else (frame.opcode, b"")
            data += frame.data
            if frame.fin:
                yield Message(data, text=opcode is Opcode.TEXT)


def cut_up(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


@given(streams, st.lists(st.integers(0, 1 << 16), max_size=20))
def test_however_a_stream_is_cut_up_it_reads_as_websockets_wrote_it(stream: list[Frame], cuts: list[int]) -> None:
    data = b"".join(frame.serialize(mask=True) for frame in stream)
    assert read(*cut_up(data, cuts)) == list(as_they_read(stream))


@given(streams)
def test_a_stream_that_drips_in_byte_by_byte_reads_the_same(stream: list[Frame]) -> None:
    data = b"".join(frame.serialize(mask=True) for frame in stream)
    assert read(*(bytes((byte,)) for byte in data)) == list(as_they_read(stream))


# --- coming in: what is wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        pytest.param(frames.text(b"hello"), 1002, id="not masked"),
        pytest.param(frames.text(b"hello") + b"more", 1002, id="not masked, and as long as if it were"),
        pytest.param(masked(0x91, b"x"), 1002, id="RSV3"),
        pytest.param(masked(0xA1, b"x"), 1002, id="RSV2"),
        pytest.param(masked(0xC1, b"x"), 1002, id="RSV1 without deflate"),
        *(pytest.param(masked(0x80 | opcode), 1002, id=f"opcode {opcode}") for opcode in (3, 7, 11, 15)),
        pytest.param(masked(0x09), 1002, id="ping in fragments"),
        pytest.param(masked(0x89, length=b"\xfe\x00\x7e"), 1002, id="ping of 126 bytes"),
        pytest.param(masked(0x80, b"x"), 1002, id="continuation of nothing"),
        pytest.param(masked(0x01, b"x") + masked(0x81, b"y"), 1002, id="a message within a message"),
        pytest.param(masked(0x81, length=b"\xfe\x00\x05"), 1002, id="5 written in two bytes"),
        pytest.param(masked(0x81, length=b"\xff" + (126).to_bytes(8, "big")), 1002, id="126 written in eight"),
        pytest.param(masked(0x81, length=b"\xff" + b"\xff" * 8), 1002, id="64 bits of length"),
        pytest.param(masked(0x81, length=b"\xff\x7f" + b"\xff" * 7), 1009, id="63 bits of length"),
        pytest.param(masked(0x81, length=b"\xfe" + (LIMIT + 1).to_bytes(2, "big")), 1009, id="one byte too many"),
        pytest.param(masked(0x81, b"\xff"), 1007, id="not UTF-8"),
        pytest.param(masked(0x01, b"\xc3") + masked(0x80, b"x"), 1007, id="not UTF-8 when joined"),
        pytest.param(masked(0x88, b"\x03"), 1002, id="half a close code"),
        *(
            pytest.param(masked(0x88, code.to_bytes(2, "big")), 1002, id=f"close code {code}")
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)
        ),
        pytest.param(masked(0x88, b"\x03\xe8\xff"), 1007, id="close reason not UTF-8"),
    ],
)
def test_what_breaks_the_protocol_is_refused_with_its_code_however_it_arrives(wrong: bytes, code: int) -> None:
    for pieces in ([wrong], [bytes((byte,)) for byte in wrong]):
        with pytest.raises(Disconnect) as refused:
            read(*pieces)
        assert refused.value.code == code


def test_what_was_said_before_the_fault_is_heard() -> None:
    heard: list[Incoming] = []
    with pytest.raises(Disconnect):
        heard.extend(Parser(LIMIT).feed(masked(0x81, b"first") + masked(0x83, b"wrong")))
    assert heard == [Message(b"first", text=True)]


def test_a_fragment_that_would_make_the_message_too_big_is_refused_by_its_header() -> None:
    whole = masked(0x01, b"x" * 100) + masked(0x00, b"x" * 100)
    with pytest.raises(Disconnect) as refused:
        read(whole, masked(0x00, b"x")[:2], limit=200)
    assert refused.value == MESSAGE_TOO_BIG


def test_a_message_in_endless_empty_fragments_is_refused() -> None:
    with pytest.raises(Disconnect) as refused:
        read(masked(0x01), *([masked(0x00)] * frames.FRAGMENTS))
    assert refused.value == MESSAGE_TOO_BIG


def test_a_deflate_bomb_is_refused_before_it_is_whole() -> None:
    bomb = they_deflate(b"\0" * (64 << 20))
    assert len(bomb) < 1 << 17
    tracemalloc.start()
    with pytest.raises(Disconnect) as refused:
        read(bomb, limit=1 << 17, inflate=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value == MESSAGE_TOO_BIG
    assert peak < 1 << 20


def test_a_length_that_is_only_announced_costs_nothing() -> None:
    parser = Parser(1 << 20)
    tracemalloc.start()
    assert events(parser, [b"\x81\xff" + (1 << 20).to_bytes(8, "big") + MASK + b"x"]) == []
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 4096


def test_marked_as_deflated_but_not_is_a_broken_protocol() -> None:
    with pytest.raises(Disconnect) as refused:
        read(masked(0xC1, b"\xff\xff\xff\xff"), inflate=True)
    assert refused.value == PROTOCOL_ERROR


def test_a_goodbye_raised_again_and_again_does_not_grow() -> None:
    for _ in range(3):
        with pytest.raises(Disconnect):
            read(masked(0x81, b"\xff"))
    assert INVALID_UTF8.__traceback__ is None


@given(st.lists(st.binary(max_size=300), max_size=5), st.booleans())
def test_random_bytes_raise_nothing_but_a_disconnect(pieces: list[bytes], inflate: bool) -> None:
    try:
        read(*pieces, inflate=inflate)
    except Disconnect as goodbye:
        assert goodbye.code in (1002, 1007, 1009)


headed = st.builds(
    lambda first, length, body: bytes((first, 0x80 | length)) + MASK + body,
    st.integers(0, 255), st.integers(0, 127), st.binary(max_size=130),
)  # fmt: skip


@given(st.lists(headed, max_size=5), st.booleans())
def test_random_frames_raise_nothing_but_a_disconnect(pieces: list[bytes], inflate: bool) -> None:
    try:
        read(b"".join(pieces), inflate=inflate)
    except Disconnect as goodbye:
        assert goodbye.code in (1002, 1007, 1009)


# --- at rest ----------------------------------------------------------------------------------------------------------


def test_between_frames_a_parser_holds_no_buffer() -> None:
    parser = Parser(LIMIT)
    data = masked(0x01, b"a") + masked(0x80, b"b")
    assert events(parser, [data[:3], data[3:]]) == [Message(b"ab", text=True)]
    assert (parser._rest, parser._fragments) == (None, None)
