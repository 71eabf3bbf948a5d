"""Adapters: legacy sources become records, through mapping files kept as data.

`adapters.mapping` loads a mapping, `adapters.reading` puts it to work on a source and gives one outcome per row:
`Mapped` with a message, or `Unmapped` with a reason and the original bytes.
"""
