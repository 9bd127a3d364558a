"""Rows with images: the key of text and image together, and chunks that hold no more images than a request may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from lmsyz.images import Image, ImageLimits
from lmsyz.rows import Rows, text_key

__all__ = ["IMAGE_ROWS", "chunks_within", "with_images"]

# An image weighs as much as a page of text, so that packing saves little, and a model that looks at many at once
# mixes them up more easily.
IMAGE_ROWS = 4


def with_images(rows: Rows, images: Sequence[Image | None], *, ids: Sequence[str] | None, dedupe: bool) -> Rows:
    """Return rows with their images; a row without one keeps the key of its text.

    Parameters
    ----------
    rows : Rows
        Their texts.
    images : sequence of Image or None
        Their images.
    ids : sequence of str or None
        Row ids.
    dedupe : bool
        Whether equal texts with equal images share one key.
    """
    keys: list[bytes] = []
    seen: Counter[tuple[str | None, str]] = Counter()
    for text, image in zip(rows.texts, images, strict=True):
        pair = text, image.name if image else ""
        n = 0 if dedupe else seen[pair]
        seen[pair] += 1
        # A text that is not there has no fields either, which is all that its request tells of it later.
        named = rows.named_fields and text is not None
        is_empty = text is None and image is None
        keys.append(b"" if is_empty else text_key(text or "", occurrence=n, named_fields=named, image=pair[1]))
    return Rows(texts=rows.texts, keys=keys, ids=ids, named_fields=rows.named_fields, images=images)


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
