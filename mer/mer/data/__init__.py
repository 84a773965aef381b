"""From a corpus to windows: its clips, the cache that they are prepared into, its splits."""
