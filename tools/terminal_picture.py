"""Make the README's picture of the live terminal from what a terminal really showed.

    tmux capture-pane -p -e > screen.ansi
    python tools/terminal_picture.py screen.ansi docs/live.svg

The words and colours are the program's own; only the frame is drawn here. Every word stands at its own
column, so that no viewer's font or handling of spaces moves it, and no font is fetched from anywhere.
"""

from __future__ import annotations

import sys
from html import escape
from itertools import groupby
from pathlib import Path

import pyte

CELL, LINE, LEFT, TOP = 8.4, 19, 16, 46
BUTTONS = ("#ff5f57", "#febc2e", "#28c840")
INK, PAPER = "#d8dee9", "#1d2330"
COLOURS = {
    "green": "#a3be8c",
    "brown": "#ebcb8b",
    "red": "#bf616a",
    "cyan": "#88c0d0",
    "blue": "#81a1c1",
    "magenta": "#b48ead",
    "brightblack": "#8892a6",
    "white": INK,
    "default": INK,
}


def picture(text: str, title: str) -> str:
    rows = text.rstrip().split("\n")
    screen = pyte.Screen(200, len(rows))
    pyte.Stream(screen).feed("\r\n".join(rows))
    width = max(len(line.rstrip()) for line in screen.display)
    wide, high = round(2 * LEFT + width * CELL), TOP + len(rows) * LINE + 8
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-size="14"',
        ' font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace">',
        f'<rect width="{wide}" height="{high}" rx="8" fill="{PAPER}"/>',
        *(f'<circle cx="{20 + 20 * i}" cy="18" r="6" fill="{c}"/>' for i, c in enumerate(BUTTONS)),
        f'<text x="{wide / 2}" y="23" fill="#8892a6" text-anchor="middle">{escape(title)}</text>',
    ]  # fmt: skip
    for y in range(len(rows)):
        line = [screen.buffer[y][x] for x in range(width)]
        styled = groupby(enumerate(line), key=lambda at: (at[1].data == " ", at[1].fg, at[1].bold))
        for (blank, colour, bold), run in styled:
            if blank:
                continue
            cells = list(run)
            word = escape("".join(cell.data for _, cell in cells))
            fill = COLOURS.get(colour, f"#{colour}" if len(colour) == 6 else INK)
            weight = ' font-weight="bold"' if bold else ""
            x, length = LEFT + cells[0][0] * CELL, len(cells) * CELL
            drawn.append(
                f'<text x="{x:.1f}" y="{TOP + y * LINE + 4}" fill="{fill}"{weight} '
                f'textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs">{word}</text>'
            )
    return "\n".join([*drawn, "</svg>", ""])


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    target.write_text(picture(source.read_text(), "make up"))
