"""FNO: the Fourier neural operator (Li et al. 2021)."""

from map2map.models.operators import BoxOperator

__all__ = ["FNO"]


class FNO(BoxOperator):
    """Layers of a spectral convolution beside one of width 1, with GELU between them.

    It sees the whole domain and takes fields of any size. Its weights act on the coefficients of
    Fourier modes, so that it can be trained on a coarse grid and applied to a finer one of the same
    domain.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels of the layers.
        modes: Modes that are kept on every axis, or on each.
        depth: Number of layers.
        padding: What is added to a domain that is not periodic: a share of it, or cells.
        positions: Whether it is told where cells are, ``cells`` or ``nodes``; then it knows where
            edges are, and no longer moves with its input.

    Raises:
        RecipeError: If an argument is out of range.
    """
