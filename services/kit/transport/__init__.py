"""What carries bytes between nodes: gRPC over mutual TLS, by one of two implementations that stand for each other.

`seam` says what a transport is; `grpcio` and `nghttp2` are two, on the same ports and in the same words, so that either
end of a connection may have either. Nothing outside this package knows which one runs.
"""
