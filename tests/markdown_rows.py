"""Rows of a markdown table."""

from __future__ import annotations


def rows(table: str) -> list[dict[str, str]]:
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines() if line[:1] == "|"]
    header, _, *body = lines
    return [dict(zip(header, line, strict=True)) for line in body]
