"""Chunks of rows with images: cut further where a request would hold too many of them, or too many bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lmsyz.images import ImageLimits
from lmsyz.rows import Rows

__all__ = ["IMAGE_ROWS", "chunks_within"]

# An image weighs as much as a page of text, so that packing saves little, and a model that looks at many at once
# mixes them up more easily.
IMAGE_ROWS = 4


def chunks_within(chunks: Iterable[tuple[int, ...]], rows: Rows, limits: ImageLimits) -> Iterator[tuple[int, ...]]:
    """Cut chunks so that each keeps within the limits; what holds no images is left as it is.

    Parameters
    ----------
    chunks : iterable of tuple of int
        Positions, as :func:`lmsyz.rows.chunk_positions` gives them.
    rows : Rows
        The rows.
    limits : ImageLimits
        Of one request.
    """
    if rows.images is None:
        yield from chunks
        return
    for chunk in chunks:
        pending: list[int] = []
        n_images = n_bytes = 0
        for position in chunk:
            image = rows.images[position]
            more = image.n_wire if image else 0
            if pending and image and (n_images >= limits.n_images or n_bytes + more > limits.n_bytes):
                yield tuple(pending)
                pending, n_images, n_bytes = [], 0, 0
            pending.append(position)
            n_images += image is not None
            n_bytes += more
        if pending:
            yield tuple(pending)
