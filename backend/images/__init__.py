"""Images: content (blobs), layers, references, registry client, transfer (pull, push), archive (save, load, import)."""

from backend.images.store import ImageStore

__all__ = ["ImageStore"]
