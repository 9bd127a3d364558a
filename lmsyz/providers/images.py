"""What each provider takes of images in one request."""

from __future__ import annotations

from lmsyz.images import ImageLimits

__all__ = ["image_limits"]

# Ours, well below either provider's: so much is in memory for every request in flight.
BYTES_A_REQUEST = 8_000_000
LIMITS = {
    # 500 images and 50 MB a request: https://developers.openai.com/api/docs/guides/images-vision names both; 20 MB an
    # image is what its earlier edition allowed, and what compatible servers mostly do. Lower numbers do no harm.
    "openai": ImageLimits(n_images=500, n_bytes=BYTES_A_REQUEST, n_bytes_each=4 * 20_000_000 // 3),
    # 5 MB an image, counted as base64, 8,000 pixels a side (2,000 from the 21st image of a request on), 32 MB a
    # request: https://platform.claude.com/docs/en/build-with-claude/vision, read November 2026. It fetches https alone.
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
