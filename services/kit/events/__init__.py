"""Events between nodes: written with what they tell of, sent on until they are kept.

An event is put into the `outbox` in the transaction that makes it true, and nowhere else. From there a
`seam.EventSource` brings it to the agency it is for: in the same process (`outbox.Outbox`) or over gRPC
(`service.EventService` at the source, `follower.Remote` at the receiver); a broker's consumer may take that place. At
the receiver a `follower.Follower` carries events from a source into a `seam.EventSink`: the agency's `inbox.Inbox`.

What holds for every implementation: at least once, known again by its id, in order, nothing lost however long the
receiver is away.
"""
