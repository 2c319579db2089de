"""Plots as SVG, by hand: bars with a logarithmic length, and lines over a logarithmic abscissa."""

from __future__ import annotations

from html import escape
from math import ceil, floor, log10

from .sitting import Series

WIDTH, LEFT, RIGHT = 720, 150, 60
BAR, GAP = 22, 10
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")
STYLE = 'font-family="system-ui, sans-serif" font-size="13" fill="#57606a"'


def bars(title: str, values: dict[str, float]) -> str:
    """A bar for each of `values`, from a tenth of the least on; the one named chatd stands out."""
    height = 40 + len(values) * (BAR + GAP)
    least, most = log10(min(values.values())) - 0.3, log10(max(values.values()))
    parts = [f'<text x="10" y="20" {STYLE} font-weight="600">{escape(title)}</text>']
    for i, (name, value) in enumerate(values.items()):
        y = 36 + i * (BAR + GAP)
        length = (WIDTH - LEFT - RIGHT) * (log10(value) - least) / (most - least)
        colour = COLOURS[0] if name == "chatd" else "#afb8c1"
        parts.append(f'<text x="{LEFT - 8}" y="{y + 16}" text-anchor="end" {STYLE}>{escape(name)}</text>')
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="3" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + length + 6:.1f}" y="{y + 16}" {STYLE}>{value:.3g}</text>')
    return _svg(height, parts)


def lines(series: Series, height: int = 320) -> str:
    """Each of the series' lines, over log10(x), from 0 upwards."""
    points = [point for line in series.lines.values() for point in line]
    low, high = floor(log10(min(x for x, _ in points))), ceil(log10(max(x for x, _ in points)))
    top = max(y for _, y in points) * 1.1 or 1.0
    across, up = WIDTH - LEFT - RIGHT, height - 90

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + across * (log10(x) - low) / max(high - low, 1), 40 + up * (1 - y / top)

    parts = [f'<text x="10" y="20" {STYLE} font-weight="600">{escape(series.title)}</text>']
    parts += _axes(series, low, high, top, place)
    for i, (name, line) in enumerate(series.lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in (place(*p) for p in line)]
        x, y = 10, 60 + 18 * i
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15}" y="{y}" {STYLE}>{escape(name)}</text>')
    return _svg(height, parts)


def _axes(series: Series, low: int, high: int, top: float, place) -> list[str]:  # type: ignore[no-untyped-def]
    parts = []
    for share in (0, 0.5, 1):
        x, y = place(10**low, top * share)
        right = place(10**high, 0)[0]
        parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end" {STYLE}>{top * share:.3g}</text>')
    for power in range(low, high + 1):
        x, y = place(10**power, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle" {STYLE}>{10**power:,}</text>')
    x, y = place(10**high, 0)
    parts.append(f'<text x="{x:.1f}" y="{y + 36:.1f}" text-anchor="end" {STYLE}>{escape(series.x)}; {series.y}</text>')
    return parts


def _svg(height: int, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
