"""What each provider takes of images in one request."""

from __future__ import annotations

from lmsyz.images import ImageLimits

__all__ = ["image_limits"]

# Ours, well below either provider's: so much is in memory for every request in flight.
BYTES_A_REQUEST = 8_000_000
LIMITS = {
    # 20 MB an image, 500 images and 50 MB a request: OpenAI's guide "Images and Vision", an edition of 2025; later ones
    # were not to be had. Compatible servers may take less.
    "openai": ImageLimits(n_images=500, n_bytes=BYTES_A_REQUEST, n_bytes_each=4 * 20_000_000 // 3),
    # 8,000 pixels a side (2,000 from the 21st image of a request on), 32 MB a request:
    # https://platform.claude.com/docs/en/build-with-claude/vision, read November 2026. 5 MB an image, counted as
    # base64, and https alone: as its errors say in public threads.
    "anthropic": ImageLimits(
        n_images=20, n_bytes=BYTES_A_REQUEST, n_bytes_each=5 * 1024 * 1024, pixels_each=8000, https_only=True
    ),
}


def image_limits(backend: str) -> ImageLimits:
    """Return what a request to a provider may hold of images.

    Examples
    --------
    >>> image_limits("anthropic").n_images
    20
    """
    return LIMITS[backend]
