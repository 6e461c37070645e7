"""The wire, both ends: the server's on aiosmtpd, the client's on aiosmtplib."""
