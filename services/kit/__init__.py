"""What every node is made of.

Importing the kit sets the TLS floor of the process, which only works before gRPC is loaded (`certs.tls`).
"""

from certs.tls import require_tls13

require_tls13()
