"""How long a classic NetCDF file should be: the library reads zeros beyond its end."""

from collections.abc import Iterator
from math import prod
from typing import BinaryIO

__all__ = ["classic_size"]


class ClassicHeader:
    """The header of a classic file, of which "CDF" has been read.

    The format is specified in the appendix "File Format Specifications" of the NetCDF Users Guide.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.wide = 4
        version = self.number(1)
        self.wide = 8 if version == 5 else 4
        self.begin_size = 4 if version == 1 else 8
        self.records = self.number()

    def number(self, size: int | None = None) -> int:
        size = size or self.wide
        read = self.file.read(size)
        if len(read) < size:
            raise EOFError
        return int.from_bytes(read, "big")

    def skip(self, size: int) -> None:
        self.file.seek(size + -size % 4, 1)

    def entries(self) -> range:
        self.number(4)  # the tag of the list
        return range(self.number())

    def skip_attributes(self) -> None:
        for _ in self.entries():
            self.skip(self.number())
            item = BYTES.get(self.number(4), 0)
            self.skip(self.number() * item)

    def lengths(self) -> Iterator[int]:
        """Of the dimensions; 0 for that of the records."""
        for _ in self.entries():
            self.skip(self.number())
            yield self.number()

    def variables(self, lengths: list[int]) -> Iterator[tuple[int, int, bool]]:
        """Where each begins, its bytes (per record), and whether it has records."""
        for _ in self.entries():
            self.skip(self.number())
            shape = [lengths[self.number()] for _ in range(self.number())]
            self.skip_attributes()
            item = BYTES.get(self.number(4), 0)
            self.number()  # the size; redundant, and wrong for large variables
            begin = self.number(self.begin_size)
            has_records = bool(shape) and shape[0] == 0
            yield begin, prod(shape[has_records:]) * item, has_records


def classic_size(file: BinaryIO) -> int | None:
    """Bytes that a classic file announces in its header; None if that is not complete."""
    try:
        header = ClassicHeader(file)
        lengths = list(header.lengths())
        header.skip_attributes()
        variables = list(header.variables(lengths))
    except (EOFError, IndexError):
        return None
    ends = [begin + size for begin, size, has_records in variables if not has_records]
    of_records = [(begin, size) for begin, size, has_records in variables if has_records]
    # records are padded to 4 bytes each, unless there is one variable only
    stride = sum(size + (-size % 4 if len(of_records) > 1 else 0) for _, size in of_records)
    if header.records not in (0, STREAMING[header.wide]):
        ends += [begin + (header.records - 1) * stride + size for begin, size in of_records]
    return max(ends, default=0)


BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
"""Size of a number, by its type in classic files."""

STREAMING = {4: 2**32 - 1, 8: 2**64 - 1}
"""Number of records where it is not known."""
