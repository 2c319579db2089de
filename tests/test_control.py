"""What an operator asks and is told: questions on their way, and the nodes' answers put together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chatd import control
from chatd.control import (
    Alive,
    Answers,
    Drain,
    Enter,
    Kick,
    Question,
    Revoke,
    Rooms,
    Status,
    Undrain,
    Who,
    changes_something,
    decode,
    encode,
    node_of,
)

QUESTIONS: list[Question] = [
    Status(),
    Alive(),
    Who(),
    Who(room="lobby", user="ana", address="10.0.0.0/8"),
    Rooms(),
    Kick("ana", room="lobby", reason="spam", revoke=True),
    Revoke("user", "ana", until=100.0, issued_before=50.5),
    Revoke("token", "jti-1", until=100),
    Drain("n1", over=2.5),
    Undrain("n1"),
    Kick("ana", client="c-1", keep=("c-2", "c-3"), code=3503),
    Enter("ana", "lobby", epoch="e", offset=7),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=repr)
def test_a_question_arrives_as_it_was_asked(question: Question) -> None:
    assert decode(json.loads(json.dumps(encode(question)))) == question


@pytest.mark.parametrize(
    ("nonsense", "complaint"),
    [
        ({}, "came"),
        (None, "None came"),
        ([1], "came"),
        ("status", "came"),
        ({"ask": "shutdown"}, "shutdown"),
        ({"ask": ["status"]}, "came"),
        ({"ask": "status", "deep": True}, "deep"),
        ({"ask": "kick", "target": 7}, "Kick.target must be str, 7 came"),
        ({"ask": "kick", "target": None}, "Kick.target must be str, None came"),
        ({"ask": "kick", "target": "ana", "revoke": 1}, "Kick.revoke must be bool, 1 came"),
        ({"ask": "revoke", "kind": "user", "id": "ana"}, "until"),
        ({"ask": "revoke", "kind": "user", "id": "ana", "until": "soon"}, "Revoke.until must be float, 'soon' came"),
        ({"ask": "revoke", "kind": "user", "id": "ana", "until": True}, "Revoke.until must be float, True came"),
    ],
)
def test_what_is_no_question_is_refused_in_a_sentence(nonsense: object, complaint: str) -> None:
    with pytest.raises(ValueError) as refusal:
        decode(nonsense)
    assert complaint in str(refusal.value)


def test_acts_are_told_from_questions() -> None:
    assert [changes_something(question) for question in QUESTIONS] == [False] * 5 + [True] * 6 + [False]


@pytest.mark.parametrize(("lease", "node"), [("n.1", "n"), ("a.b.2", "a.b"), ("n", "n")])
def test_a_node_is_the_same_under_every_lease(lease: str, node: str) -> None:
    assert node_of(lease) == node


def about(node: str, connections: int, *rooms: str) -> dict[str, Any]:
    return {"node": {"id": node, "state": "ready", "connections": connections}, "rooms": list(rooms)}


def test_status_counts_each_room_and_each_user_of_the_cluster_once() -> None:
    answers = Answers({"b": about("b", 2, "lobby", "den"), "a": about("a", 1, "lobby")})
    status = control.status(answers, [("ana", "a"), ("ana", "b"), ("ben", "b")])
    assert status["cluster"] == {"nodes": 2, "connections": 3, "users": 2, "rooms": 2, "lockdown": 0}
    assert [node["id"] for node in status["nodes"]] == ["a", "b"]
    assert status["schema_version"] == 1


def test_status_names_a_silent_node_and_counts_its_connections_from_the_registry() -> None:
    answers = Answers({"a": about("a", 1, "lobby")}, missing=("z",))
    status = control.status(answers, [("ana", "a"), ("ben", "z"), ("cem", "z")])
    assert status["cluster"] == {"nodes": 2, "connections": 3, "users": 3, "rooms": 1, "lockdown": 0}
    assert status["nodes"][1] == {"id": "z", "state": "silent", "connections": 2}


def test_status_of_nobody_is_all_zeros() -> None:
    assert control.status(Answers({}), [])["cluster"] == {
        "nodes": 0,
        "connections": 0,
        "users": 0,
        "rooms": 0,
        "lockdown": 0,
    }


def test_putting_status_together_leaves_the_answers_as_they_were() -> None:
    answer = about("a", 1)
    control.status(Answers({"a": answer}), [])["nodes"][0]["state"] = "changed"
    assert answer["node"]["state"] == "ready"


def test_who_lists_the_longest_connected_first_whatever_node_they_are_on() -> None:
    def entry(id: str, since: float) -> dict[str, Any]:
        return {"id": id, "since": since}

    of_a, of_b = [entry("c3", 30.0), entry("c1", 10.0)], [entry("c2", 10.0)]
    answers = Answers({"a": {"connections": of_a}, "b": {"connections": of_b}})
    who = control.who(answers)
    assert [each["id"] for each in who["connections"]] == ["c1", "c2", "c3"]
    assert who.keys() == {"schema_version", "connections"}


def test_rooms_are_summed_over_the_nodes_and_the_fullest_comes_first() -> None:
    answers = Answers(
        {
            "a": {"rooms": {"den": {"ana": 1}, "lobby": {"ana": 2, "ben": 1}}},
            "b": {"rooms": {"attic": {"zoe": 1}, "lobby": {"ana": 1}}},
        }
    )
    assert control.rooms(answers)["rooms"] == [
        {"room": "lobby", "connections": 4, "users": 2},
        {"room": "attic", "connections": 1, "users": 1},
        {"room": "den", "connections": 1, "users": 1},
    ]


def test_kicked_says_how_many_on_which_nodes_and_leaves_out_the_others() -> None:
    answers = Answers({"a": {"closed": 2}, "b": {"closed": 0}, "c": {"closed": 1}})
    assert control.kicked(answers) == {"schema_version": 1, "closed": 3, "nodes": {"a": 2, "c": 1}}


@pytest.mark.parametrize("merge", [control.who, control.rooms, control.kicked])
def test_a_partial_answer_names_the_silent(merge: Any) -> None:
    assert merge(Answers({}, missing=("z", "y")))["silent"] == ["y", "z"]
    assert "silent" not in merge(Answers({}))
