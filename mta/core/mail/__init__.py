"""What mail is made of: addresses, headers, octets, notices."""
