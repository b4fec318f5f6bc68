"""Figures of test sets, in physical units, run by run. To add one, write one file.

A figure is a class derived from `RunFigure`: ``add`` takes in a field of one run, of truth and
predictions, and remembers no more than what is drawn; ``draw`` makes the figures. Its arguments are
options of how it is drawn. `m2m evaluate --figures FOLDER` draws all that are named here.
"""

from map2map.figures.base import Case, RunFigure
from map2map.figures.boxplot import Boxplot
from map2map.figures.cross_section import CrossSection
from map2map.figures.dispersion import Dispersion
from map2map.figures.histogram import Histogram
from map2map.figures.histogram2d import Histogram2d
from map2map.figures.layer_profile import LayerProfile
from map2map.figures.profiles import Profiles
from map2map.figures.samples import Samples

__all__ = [
    "Boxplot",
    "Case",
    "CrossSection",
    "Dispersion",
    "Histogram",
    "Histogram2d",
    "LayerProfile",
    "Profiles",
    "RunFigure",
    "Samples",
]
