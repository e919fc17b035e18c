"""Bars as SVG, readable on a light and on a dark page."""

import math
import os
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, BAR, TOP, BOTTOM = 880, 320, 110, 20, 56, 52
SPAN = WIDTH - LEFT - RIGHT
STYLE = """text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-size: 16px; font-weight: 600 }
.soft { fill: #59636e } .axis { stroke: #59636e } .grid { stroke: #d1d9e0 }
.ours { fill: #0969da } .hand { fill: #9a6700 } .more { opacity: .55 } .back { fill: #ffffff }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .soft { fill: #9198a1 } .axis { stroke: #9198a1 }
.grid { stroke: #3d444d } .ours { fill: #4493f8 } .hand { fill: #d29922 } .back { fill: #0d1117 } }"""


def write(folder, rows):
    save(folder, {"seeds-disk": disk(rows), "seeds-cache": cache(rows), "seeds-times": times(rows)})


def save(folder, drawings):
    """Each as a whole or not at all."""
    for name, drawing in drawings.items():
        path = os.path.join(folder, name + ".svg")
        with open(path + ".new", "w") as file:
            file.write(drawing)
        os.rename(path + ".new", path)


def disk(rows):
    """The base, and nine more slivers as the last one, beside the measured ones."""
    seen = [row for row in rows if row.extra]
    bars = []
    for row in seen:
        slivers = sum(row.extra) + max(0, 10 - len(row.extra)) * row.extra[-1]
        bars.append((label(row), row.way.ours, [row.base / MIB, max(0, slivers) / MIB]))
    return bars_svg("Disk of ten slivers: the base, and (paler) what they add", "MiB", bars)


def cache(rows):
    """Of ten views; where fewer were read, which then share nothing, the rest in proportion."""
    bars = []
    for row in rows:
        if row.reading:
            seen = row.reading["cache"] / MIB
            bars.append((label(row), row.way.ours, [seen, seen * max(0, 10 - row.reading["readers"]) / row.reading["readers"]]))
    return bars_svg("Page cache once ten slivers have read the whole base (paler: reckoned from fewer)", "MiB", bars)


def times(rows):
    create = [(label(row), row.way.ours, [made(row)]) for row in rows]
    first = [(label(row), row.way.ours, [row.first_write]) for row in rows if row.first_write is not None]
    return two_svg(
        ("Time to create and mount a sliver", "ms, logarithmic", create),
        ("First write into a large file of the base, until it is on the disk", "ms, logarithmic", first),
    )


def made(row):
    return row.median(row.creates) + (row.median(row.mounts) if row.mounts else 0)


def label(row):
    return "%s, %s" % (row.way.title.replace("`", ""), row.kind)


MIB = 1 << 20


def bars_svg(title, unit, bars):
    body, height = panel(title, unit, bars, 0, False)
    return svg(body, height)


def two_svg(one, other):
    first, height = panel(*one, 0, True)
    second, end = panel(*other, height + 16, True)
    return svg(first + second, end)


def svg(body, height):
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">\n<style>%s</style>\n'
        '<rect class="back" width="100%%" height="100%%"/>\n%s\n</svg>\n' % (WIDTH, height, WIDTH, height, STYLE, "\n".join(body))
    )


def panel(title, unit, bars, top, logarithmic):
    """The lines of a chart that begins at a height, and the height at which it ends."""
    bottom = top + TOP + len(bars) * (BAR + 6)
    values = [1, *(sum(parts) for _, _, parts in bars)]
    ticks, place = logarithms(min(values), max(values)) if logarithmic else scale(max(values))
    lines = [text(16, top + 26, title, "title")]
    for tick in ticks:
        x = LEFT + place(tick)
        lines.append('<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>' % (x, top + TOP - 8, x, bottom))
        lines.append(text(x, bottom + 18, "{:,g}".format(tick), "soft", "middle"))
    lines.append('<line class="axis" x1="%d" y1="%d" x2="%d" y2="%d"/>' % (LEFT, top + TOP - 8, LEFT, bottom))
    lines.append(text(LEFT + place(ticks[-1]) / 2, bottom + 38, unit, "soft", "middle"))
    for number, (name, ours, parts) in enumerate(bars):
        y = top + TOP + number * (BAR + 6)
        begin, whole = 0, 0
        for index, part in enumerate(parts):
            whole += part
            end = place(whole)
            kind = ("ours" if ours else "hand") + (" more" if index else "")
            lines.append('<rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d"/>' % (kind, LEFT + begin, y, max(1, end - begin), BAR))
            begin = end
        lines.append(text(LEFT - 8, y + 15, name, "", "end"))
        lines.append(text(LEFT + begin + 6, y + 15, shown(whole), "soft"))
    x = WIDTH - 190
    for index, (kind, what) in enumerate((("ours", "sliverfs"), ("hand", "by hand"))):
        lines.append('<rect class="%s" x="%d" y="%d" width="12" height="12"/>' % (kind, x + 90 * index, bottom + 28))
        lines.append(text(x + 90 * index + 17, bottom + 38, what, "soft"))
    return lines, bottom + BOTTOM


def text(x, y, what, kind, anchor="start"):
    return '<text class="%s" x="%.1f" y="%d" text-anchor="%s">%s</text>' % (kind, x, y, anchor, escape(what))


def shown(value):
    return "{:,.0f}".format(value) if value >= 100 else "{:,.1f}".format(value)


def scale(most):
    """Round numbers along the axis, and where on it a value lies."""
    step, turn = 1, 0
    while most / step > 6:
        step = step * (2, 5 / 2, 2)[turn]
        turn = (turn + 1) % 3
    ticks = [int(step) * number for number in range(int(most // step) + 2)]
    return ticks, lambda value: SPAN * value / ticks[-1]


def logarithms(least, most):
    """As `scale`, by powers of ten, the lowest a tenth; what is below it lies at the axis."""
    ticks = [1] if least >= 1 else [0.1, 1]
    while ticks[-1] < most:
        ticks.append(ticks[-1] * 10)
    decades = max(1, len(ticks) - 1)
    return ticks, lambda value: SPAN * math.log10(max(value / ticks[0], 1)) / decades
