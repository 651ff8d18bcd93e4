"""Studies: plan and train many runs that answer one question, and write tables, tests and a page from their results."""
