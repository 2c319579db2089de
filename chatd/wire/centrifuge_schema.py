"""The Centrifuge client protocol, version 2, as messages of Protocol Buffers: their fields, by name, type and number.

What chatd neither reads nor writes is left out: fields that are not known are ignored by both sides (section 1). The
numbers are those of the protocol's description, sections 2, 3, 4 and 6. What any of it means is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_PACKAGE: Final = "chatd.centrifuge"
_MANY: Final = ("list", "map")

SCALARS: Final[Mapping[str, type]] = {
    "bool": bool,
    "bytes": bytes,
    "int32": int,
    "int64": int,
    "string": str,
    "uint32": int,
    "uint64": int,
}

# A field a line: type, name and number; `list` for repeated ones, `map` for maps by string.
SCHEMA: Final[Mapping[str, str]] = {
    "Command": """
        uint32 id 1
        ConnectRequest connect 4
        SubscribeRequest subscribe 5
        UnsubscribeRequest unsubscribe 6
        PublishRequest publish 7
        PresenceRequest presence 8
        PresenceStatsRequest presence_stats 9
        HistoryRequest history 10
        PingRequest ping 11
        SendRequest send 12
        RPCRequest rpc 13
        RefreshRequest refresh 14
        SubRefreshRequest sub_refresh 15
    """,
    "ConnectRequest": """
        string token 1
        bytes data 2
        map SubscribeRequest subs 3
        string name 4
        string version 5
    """,
    "SubscribeRequest": """
        string channel 1
        string token 2
        bool recover 3
        string epoch 6
        uint64 offset 7
        bool join_leave 11
        string delta 12
        FilterNode tf 13
        int64 flag 14
        int32 type 15
    """,
    "FilterNode": "",
    "UnsubscribeRequest": "string channel 1",
    "PublishRequest": """
        string channel 1
        bytes data 2
    """,
    "PresenceRequest": "string channel 1",
    "PresenceStatsRequest": "string channel 1",
    "StreamPosition": """
        uint64 offset 1
        string epoch 2
    """,
    "HistoryRequest": """
        string channel 1
        int32 limit 7
        StreamPosition since 8
        bool reverse 9
    """,
    "PingRequest": "",
    "SendRequest": "bytes data 1",
    "RPCRequest": """
        bytes data 1
        string method 2
    """,
    "RefreshRequest": "string token 1",
    "SubRefreshRequest": """
        string channel 1
        string token 2
    """,
    "Reply": """
        uint32 id 1
        Error error 2
        Push push 4
        ConnectResult connect 5
        SubscribeResult subscribe 6
        UnsubscribeResult unsubscribe 7
        PublishResult publish 8
        PresenceResult presence 9
        PresenceStatsResult presence_stats 10
        HistoryResult history 11
        RPCResult rpc 13
        RefreshResult refresh 14
        SubRefreshResult sub_refresh 15
    """,
    "Error": """
        uint32 code 1
        string message 2
        bool temporary 3
    """,
    "ConnectResult": """
        string client 1
        string version 2
        bool expires 3
        uint32 ttl 4
        map SubscribeResult subs 6
        uint32 ping 7
        bool pong 8
        string session 9
        string node 10
    """,
    "SubscribeResult": """
        bool expires 1
        uint32 ttl 2
        bool recoverable 3
        string epoch 6
        list Publication publications 7
        bool recovered 8
        uint64 offset 9
        bool positioned 10
        bool was_recovering 12
    """,
    "UnsubscribeResult": "",
    "PublishResult": "",
    "PresenceResult": "map ClientInfo presence 1",
    "PresenceStatsResult": """
        uint32 num_clients 1
        uint32 num_users 2
    """,
    "HistoryResult": """
        list Publication publications 1
        string epoch 2
        uint64 offset 3
    """,
    "RPCResult": "bytes data 1",
    "RefreshResult": """
        string client 1
        string version 2
        bool expires 3
        uint32 ttl 4
    """,
    "SubRefreshResult": """
        bool expires 1
        uint32 ttl 2
    """,
    "Push": """
        string channel 2
        Publication pub 4
        Join join 5
        Leave leave 6
        Unsubscribe unsubscribe 7
        Subscribe subscribe 9
        Disconnect disconnect 11
    """,
    "Publication": """
        bytes data 4
        ClientInfo info 5
        uint64 offset 6
        map string tags 7
        int64 time 9
        string epoch 14
    """,
    "ClientInfo": """
        string user 1
        string client 2
        bytes conn_info 3
        bytes chan_info 4
    """,
    "Join": "ClientInfo info 1",
    "Leave": "ClientInfo info 1",
    "Unsubscribe": """
        uint32 code 2
        string reason 3
    """,
    "Subscribe": """
        bool recoverable 1
        string epoch 4
        uint64 offset 5
        bool positioned 6
    """,
    "Disconnect": """
        uint32 code 1
        string reason 2
    """,
    "EmulationRequest": """
        string node 1
        string session 2
        bytes data 3
    """,
}


def fields(name: str) -> Iterator[tuple[str, str, str, int]]:
    """The fields of a message of SCHEMA: "list", "map" or "", then type, name and number."""
    for line in filter(None, map(str.strip, SCHEMA[name].splitlines())):
        words = line.split()
        many = words.pop(0) if words[0] in _MANY else ""
        yield many, words[0], words[1], int(words[2])


def message_classes() -> dict[str, type[Message]]:
    """A class for each message of SCHEMA, by its name."""
    file = FileDescriptorProto(name="chatd/centrifuge.proto", package=_PACKAGE, syntax="proto3")
    for name in SCHEMA:
        _describe(file.message_type.add(name=name))
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in SCHEMA}


def _describe(message: DescriptorProto) -> None:
    for many, kind, name, number in fields(message.name):
        if many == "map":
            entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
            entry.options.map_entry = True
            entry.field.append(_field("string", "key", 1))
            entry.field.append(_field(kind, "value", 2))
            kind = f"{message.name}.{entry.name}"
        message.field.append(_field(kind, name, number, repeated=bool(many)))


def _field(kind: str, name: str, number: int, *, repeated: bool = False) -> FieldDescriptorProto:
    label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    field = FieldDescriptorProto(name=name, number=number, label=label)
    if kind in SCALARS:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    return field
