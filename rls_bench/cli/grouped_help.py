"""The list of commands in ``rls-bench --help``, under a heading for each group."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class GroupedHelp(TyperGroup):
    """Plain help whose commands stand under the panels that typer draws with rich alone, in the order of adding."""

    # Any: click's classes or, in newer versions of typer, its own copies of them.
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section a panel, with each command's one line."""
        rows_by_panel: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is None or command.hidden:
                continue
            panel = getattr(command, "rich_help_panel", None) or "Commands"
            rows_by_panel.setdefault(panel, []).append((name, command.get_short_help_str(limit=formatter.width)))
        widest = max(len(name) for rows in rows_by_panel.values() for name, _ in rows)
        for panel, rows in rows_by_panel.items():
            with formatter.section(panel):
                formatter.write_dl([(name.ljust(widest), line) for name, line in rows])
