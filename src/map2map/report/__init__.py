"""The report: one HTML page that needs no other file and no network, from a scores file only.

- `scores`: the file, read and checked;
- `wording`: numbers as a reader wants them;
- `headline`: the first sentences and the warnings;
- `tables`: scores, scales, runs, times, the card;
- `drawing`: pictures as SVG in the page's colors, or as PDF;
- `curves`, `maps`: the pictures;
- `page`: all of it in order, into ``page.html``.
"""

from map2map.report.page import report

__all__ = ["report"]
