"""The report: one HTML page that needs no other file and no network, from a scores file only.

- `scores`: the file, read and checked;
- `wording`: numbers as a reader wants them;
- `headline`: the first sentences and the warnings;
- `tables`: scores, scales, runs, times, the card;
- `drawing`: pictures as SVG in the page's colors, or as PDF;
- `curves`, `maps`, `profiles`: the pictures;
- `filling`: what pages of all kinds share, with ``base.html`` and ``parts.html``;
- `beside`: figures that were drawn before, to be shown with it;
- `page`: all of it in order, into ``page.html``.

Of labels and parameters of whole runs:

- `run_scores`: the file, read and checked;
- `run_origin`, `run_words`: whether the runs are new, and the first sentences and warnings;
- `run_tables`, `run_pictures`: scores and runs, and their pictures;
- `runs`: all of it in order, into ``runs.html``.

Of rollouts, all is in `leads`, into ``leads.html``.
"""

from map2map.report.page import report

__all__ = ["report"]
