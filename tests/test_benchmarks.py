"""The benchmarks still run: the smallest sitting, from a real chatd and the C programs to the table and its plots."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from benchmarks import counted, report, server
from benchmarks.figures import FIGURES, busy, fan_out, publish, slow
from benchmarks.figures.cost import settle
from benchmarks.load import Faulty, Load, loading
from benchmarks.machine import cores
from benchmarks.peers import Peer
from benchmarks.sitting import QUICK, Row, Series, Sitting, ratio

TINY = replace(QUICK, runs=1, seconds=0.05, turns=2, turn_s=0.05, readers=(20,), crowd=20)


@pytest.fixture(autouse=True)
def _a_compiler() -> None:
    if shutil.which("cc") is None:
        assert not os.environ.get("CI"), "the benchmarks' test needs a C compiler as `cc`"
        pytest.skip("there is no C compiler as `cc`")


def test_a_figure_runs_from_the_server_to_the_table(tmp_path: Path) -> None:
    sitting = Sitting(TINY, peers=())
    sitting.run("fan-out", fan_out.measure)
    for rooms in (2, 91):
        sitting.plots.append(Series(f"By load, rooms of {rooms}", "%", "ms", {"p50": [(10, 1.0), (50, 2.0)]}))
    report.write(sitting, tmp_path)
    costs = {row.who: row.median for row in sitting.rows if row.figure == "fan-out"}
    assert costs.keys() == {"floor", "chatd"}, [row.reason for row in sitting.rows]
    table = (tmp_path / "RESULTS.md").read_text()
    assert "| 20 readers | chatd |" in table
    assert "× floor" in table
    assert re.search(
        r"^\| steadiness \| the same code, before each figure, took [\d.]+ to [\d.]+ × its fastest \|$", table, re.M
    )
    assert json.loads((tmp_path / "results.json").read_text())["rows"]
    for plot in ("by-load-rooms-of-2.svg", "by-load-rooms-of-91.svg"):
        assert ElementTree.parse(tmp_path / plot).getroot().tag.endswith("svg")


def test_who_takes_turns_is_held_against_the_others_run_in_the_same_turn() -> None:
    speeds = iter([1.0, 1.0, 5.0, 5.0, 1.0, 1.0, 1.0, 5.0])  # of a machine that others use as well
    lasted: list[float] = []

    def cost(seconds: float, of: float) -> float:
        lasted.append(seconds)
        return of * next(speeds)

    floor, ours = Sitting(replace(TINY, turns=4), peers=()).in_turns(partial(cost, of=10.0), partial(cost, of=12.0))
    assert (floor, ours) == ([10.0, 50.0, 10.0, 10.0], [12.0, 60.0, 12.0, 60.0])
    assert ratio(ours, floor) == 1.2
    assert lasted == [TINY.turn_s] * 8


def test_a_peer_that_is_left_out_is_so_for_what_was_measured_of_it() -> None:
    sitting, nobody = Sitting(TINY, peers=()), cast("Any", None)
    sitting.note(Row("fan-out", "20 readers", "snail", "µs a delivery", [62.5, 50.0, 70.0]))
    # With more readers a delivery costs the floor more as well: what it costs there says nothing of the peer.
    fan_out._measure_peer(
        sitting, fan_out.Floor(nobody, nobody, 200, costs=[7.0]), Peer("snail", ("snail",), "snail.py")
    )
    assert sitting.rows[-1].reason == "left out: 62 µs a delivery with fewer readers already"


def test_a_figure_that_fails_is_shown_as_failed_and_the_others_go_on(tmp_path: Path) -> None:
    def fails(sitting: Sitting) -> None:
        raise Faulty("three are missing")

    sitting = Sitting(TINY, peers=())
    sitting.run("storm", fails)
    report.write(sitting, tmp_path)
    assert "| failed | - |  |  | runs | **no**: three are missing |" in (tmp_path / "RESULTS.md").read_text()


def test_every_delivery_is_counted_in_rooms_that_overlap_and_from_many_publishers() -> None:
    sitting = Sitting(TINY, peers=())
    with server.chatd(sitting) as (chatd, directory), loading(cores()[-1]) as load:
        settle(load, 12, chatd.setup(directory, 12), rooms=6, each=3, streams=12)
        answer, _, _ = load.run(seconds=0.05, window=12)
        assert answer.delivered == answer.expected == answer.messages * 6
    for costs in publish.costs(sitting, rooms=4):
        assert len(costs) == sitting.scale.runs


def test_a_load_that_shall_not_sleep_costs_the_server_no_waking() -> None:
    def sleeps(load: Load) -> int:
        status = Path(f"/proc/{load.pid}/status").read_text()
        return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    with server.floor(Sitting(TINY)) as one, loading(cores()[-1]) as load:
        settle(load, 20, one.setup)
        before = sleeps(load)
        answer, _, _ = load.run(seconds=0.1, window=1, spin=1)
        # It waits for three words of ours: run, go, and what follows.
        assert sleeps(load) - before <= 3 + answer.messages / 10


def test_the_floor_joins_what_a_room_has_to_say_and_tells_nobody_else() -> None:
    with server.floor(Sitting(TINY), joins=True) as floor, loading(cores()[-1]) as load:
        settle(load, 12, floor.setup, rooms=3, streams=12)
        answer, _, _ = load.run(seconds=0.05, window=12)
    assert answer.delivered == answer.expected == answer.messages * 4


def test_what_idle_crowds_and_storms_cost_is_held_against_the_floor() -> None:
    sitting = Sitting(replace(TINY, heartbeat_s=2, heartbeats=4, storm=60), peers=())
    for name in ("idle", "storm"):
        sitting.run(name, FIGURES[name])
    held = {row.figure for row in sitting.rows if row.who == "chatd" and "× floor" in row.beside}
    assert held == {"idle CPU", "storm"}, [row.reason for row in sitting.rows]


def test_every_case_of_the_busy_room_has_a_member_for_each_of_its_publishers() -> None:
    for case in busy.CASES:
        assert case.streams <= case.readers * case.each
        assert case.window <= case.streams * case.depth


def test_readers_that_stop_are_cut_off_with_3008_and_recover_without_a_gap() -> None:
    sitting = Sitting(TINY, peers=())
    slow.measure(sitting)
    told = [row for row in sitting.rows if "3008" in row.case]
    assert [row.median for row in told] == [TINY.crowd / 10]


@pytest.mark.timeout(180)  # under valgrind all takes its time
def test_instructions_are_counted_for_what_is_said_and_hardly_any_for_silence() -> None:
    if shutil.which("callgrind_control") is None:
        assert not os.environ.get("CI"), "valgrind is missing, and in CI nothing may skip"
        pytest.skip("valgrind is missing; it counts instructions")
    with counted.counting(counted.HOUSE) as (chatd, load):
        settle(load, 4, chatd.chatd.setup(chatd.directory, 4), rooms=2, streams=2, depth=1)
        chatd.begin()
        answer, _, said = load.run(chatd.since_last, seconds=0.3, window=2)
        chatd.chatd.node.until_quiet()
        chatd.since_last()
        assert said > answer.messages * 100_000 > chatd.since_last()


def test_of_callgrinds_dumps_the_total_is_read() -> None:
    assert counted.total("events: Ir\nsummary: 12\n\ntotals: 12\n") == 12
    with pytest.raises(ValueError, match=r"expected a line `totals: N`"):
        counted.total("desc: Trigger: dump\n")
