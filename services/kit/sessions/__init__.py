"""Sessions: many questions on one stream, each a call by itself.

`serving` answers them, `asking` asks them. Whatever has come together while the last message was written goes out in
the next one; nothing waits for company.
"""
