"""How much longer a call may take on queries that its process never saw, than one takes on those that it has seen.

Nothing here needs torch, for the coordinator has none.
"""

from __future__ import annotations

# Several times as long, and not by a neighbour's doing: in every one of so many tries, each on queries of its own.
FACTOR = 3.0
MOST_TRIES = 9
# Calls on contents that it saw, before one that is to be held against them.
CAREFUL_CALLS = 3
# Between two calls that take the same time; on CUDA each is waited for.
_SLACK_NS = {"cpu": 20_000, "cuda": 100_000}


def complaint(seen_ns: float, unseen_ns: float, device: str) -> str:
    """What is wrong where a call took ``unseen_ns`` on new queries and ``seen_ns`` on others, or an empty string."""
    if unseen_ns <= FACTOR * seen_ns + _SLACK_NS[device.split(":")[0]]:
        return ""
    return (
        f"its results are kept from before, row by row: a call takes {unseen_ns / 1e6:.3g} ms on queries that it never "
        f"saw, {seen_ns / 1e6:.3g} ms on those that it did"
    )
