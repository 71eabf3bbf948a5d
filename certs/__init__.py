"""Identity: the zone's certificate authority, X.509 SVIDs, their rotation and revocation, and TLS credentials for gRPC.

`spiffe` names, `authority` issues, `svid` reads what was issued, `verify` decides who a peer is, `revocation` who no
longer is, `rotation` when to renew, `rollover` how the authority itself is replaced, `agent` who looks after all that,
`workload` takes identities from SPIFFE's Workload API, `tls` turns files into gRPC credentials, `commands` is
`hutong certs`.
"""
