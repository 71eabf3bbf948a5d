"""The executable: `hutong` and its commands. It may know every room; nobody knows it.

The kit is imported first, because it sets the process's TLS floor, which must stand before gRPC is loaded.
"""

import services.kit  # noqa: F401  # pyright: ignore[reportUnusedImport]
