# SPDX-License-Identifier: BSD-3-Clause
"""Plots as SVG text, without a library: bars and lines."""
from html import escape

COLORS = ["#1f5fa8", "#c2451e", "#3a8a3a", "#8a5fb0", "#a07818", "#607080"]


def svg(width, height, parts):
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
            f'<rect width="{width}" height="{height}" fill="white"/>')
    return head + "\n".join(parts) + "</svg>\n"


def text(x, y, what, anchor="start", size=12, color="#222"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
            f'fill="{color}">{escape(str(what))}</text>')


def bars(title, rows, unit):
    """@rows: (name, value, is ours)."""
    width, left, line = 720, 210, 24
    most = max((v for _, v, _ in rows), default=0) or 1
    out = [text(10, 22, title, size=14)]
    for i, (name, value, ours) in enumerate(rows):
        y = 40 + i * line
        w = value / most * (width - left - 120)
        out.append(text(left - 8, y + 13, name, "end"))
        out.append(f'<rect x="{left}" y="{y}" width="{w:.1f}" height="{line - 6}" '
                   f'fill="{COLORS[0] if ours else "#9aa4ad"}"/>')
        out.append(text(left + w + 6, y + 13, f"{value:,.3g}" if value < 100 else f"{value:,.0f}"))
    out.append(text(left, 40 + len(rows) * line + 14, unit, color="#666"))
    return svg(width, 40 + len(rows) * line + 28, out)


def lines(title, series, xs, unit):
    """@series: (name, values); the points of @xs stand at equal distances."""
    width, height, left, bottom, top = 720, 320, 60, 44, 56
    most = max((v for _, vs in series for v in vs), default=0) * 1.1 or 1
    out = [text(10, 22, title, size=14), text(10, 40, unit, color="#666")]

    def at(i, v):
        return (left + 20 + i * (width - left - 60) / max(len(xs) - 1, 1),
                height - bottom - v / most * (height - bottom - top))
    for k in range(5):
        x, y = at(0, most * k / 4)
        out.append(f'<line x1="{left}" y1="{y:.1f}" x2="{width - 20}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(text(left - 6, y + 4, f"{most * k / 4:.2g}", "end"))
    for i, x in enumerate(xs):
        out.append(text(at(i, 0)[0], height - bottom + 18, x, "middle"))
    for n, (name, values) in enumerate(series):
        color = COLORS[n % len(COLORS)]
        points = [at(i, v) for i, v in enumerate(values)]
        out.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="' +
                   " ".join(f"{x:.1f},{y:.1f}" for x, y in points) + '"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in points]
        out.append(text(left + 20 + n * 170, height - 8, name, color=color))
    return svg(width, height, out)
