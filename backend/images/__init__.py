"""Images: content (blobs), layers, references, registry client, transfer (pull, push), archive (save, load, import)."""
