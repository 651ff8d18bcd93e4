"""Which labels decide what, and the report."""
