"""The ledger: what runs and sweeps there are, read from their own files."""
