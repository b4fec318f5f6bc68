"""``m2m report SCORES``: a page that shows how good an emulator is."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Write the page, and the figures if asked for."""
    parser = argparse.ArgumentParser(
        prog="m2m report",
        description="Make one HTML page, which needs no other file and no network, of what "
        "`m2m evaluate` has written: the emulator's card, scores against baselines, slices, "
        "spectra, errors against scale, learning curve and cost; of labels and parameters "
        "confusion, ROC curve, reliability, predicted against true values, and every run; of what "
        "`m2m rollout --truth` has written errors, energy and spectra against lead time.",
        epilog="example: m2m report scores.nc --pdf figures",
    )
    parser.add_argument("scores", type=Path, help="NetCDF or Zarr that `m2m evaluate` has written")
    parser.add_argument(
        "-o", "--output", type=Path, help="the page; default: report.html beside the scores"
    )
    parser.add_argument("--title", help="title of the page")
    parser.add_argument(
        "--pdf", type=Path, metavar="FOLDER", help="also write every figure there, as PDF"
    )
    parser.add_argument(
        "--figures", type=Path, metavar="FOLDER",
        help="show the figures that m2m evaluate --figures FOLDER has drawn, too",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    options = parser.parse_args(argv)

    from map2map.report import report

    page = report(
        options.scores,
        options.output,
        title=options.title,
        pdf=options.pdf,
        figures=options.figures,
        overwrite=options.overwrite,
    )
    log.info("wrote %s", page)
    if options.pdf is not None:
        log.info("wrote its figures to %s", options.pdf)
    return 0
