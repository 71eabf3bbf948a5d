"""gRPC by the reference implementation, grpcio."""
