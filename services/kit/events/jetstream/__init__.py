"""Events through a broker, NATS JetStream: for zones where many departments follow, or cannot all be reached at once.

The broker carries; it is asked for nothing else. What is true stands at both ends: in the source's outbox, and in the
receiver's inbox together with how far it has got. A `publisher.Publisher` at the source puts signed statements into
one stream for each agency (`way.Way`): what there is for it after one sequence, up to another (`statement`). A
`carried.Carried` at the receiver is an `EventSource` over these. Whatever it finds missing there, altered, expired or
never published, it gets from the source itself, over gRPC; so a broker that loses everything loses nothing.
"""
