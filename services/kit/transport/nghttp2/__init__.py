"""gRPC on libnghttp2, asyncio and uvloop's TLS."""
