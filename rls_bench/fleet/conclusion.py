"""What a fleet's folder says in the end: which records count, which machines are suspects, what differs in a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rls_bench.fleet import folder as folders
from rls_bench.fleet.folder import Folder
from rls_bench.fleet.suspects import Suspect, suspects
from rls_bench.fleet.words import Hello
from rls_bench.records.record import Record


@dataclass
class Conclusion:
    """By kind: the records that count, and the suspects, whose records don't; ``differences`` are for a person."""

    records: dict[str, list[Record]] = field(default_factory=dict)
    suspects: dict[str, list[Suspect]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


def conclude(folder: Folder, hellos: Mapping[tuple[str, str], Hello]) -> Conclusion:
    """Judge the cells of the machines that a run met, ``hellos`` by kind and machine; writes the records that count."""
    found = Conclusion()
    for kind in dict.fromkeys(kind for kind, _ in hellos):
        own = {machine: hello for (each, machine), hello in hellos.items() if each == kind}
        found.differences += differences(kind, own)
        for versions in dict.fromkeys(folders.mark(hello.versions) for hello in own.values()):
            records = folder.read(kind, [versions])
            odd = suspects(records)
            found.suspects.setdefault(kind, []).extend(odd)
            names = {suspect.machine for suspect in odd}
            found.records.setdefault(kind, []).extend(
                entry for machine, entries in records.items() if machine not in names for entry in entries
            )
    folder.conclude(entry for entries in found.records.values() for entry in entries)
    return found


def differences(kind: str, hellos: Mapping[str, Hello]) -> list[str]:
    """A line for each version that is not the same on all machines of ``kind``."""
    lines = []
    versions = {machine: hello.versions for machine, hello in hellos.items()}
    for name in next(iter(versions.values()), {}):
        machines: dict[str, list[str]] = {}
        for machine, known in versions.items():
            machines.setdefault(known[name], []).append(machine)
        if len(machines) > 1:
            words = "; ".join(f"{value} on {', '.join(sorted(there))}" for value, there in sorted(machines.items()))
            lines.append(f"{kind}: {name} differs: {words}")
    return lines
