"""Colours: fixed for our own backends, unique for as long as there are any, doubled by markers."""

from __future__ import annotations

from rls_bench.report.palette import COLOURS, GREY, look


def test_ours_keep_their_colours_whatever_else_is_there() -> None:
    assert look(["cpu", "triton"]).colours["triton"] == look(["triton", "other", "unsteered"]).colours["triton"]
    assert look(["unsteered"]).colours == {"unsteered": GREY}


def test_others_take_what_is_free_and_never_look_the_same() -> None:
    few = look(["cpu", "flex", "mine"])
    assert len(set(few.colours.values())) == 3
    many = look([f"backend-{index}" for index in range(60)])
    assert len(set(zip(many.colours.values(), many.markers.values(), strict=True))) == 60
    assert set(many.colours.values()) == set(COLOURS)
