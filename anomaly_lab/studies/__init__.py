"""Many runs as one question: what to run, running it, and the tables, tests and page made from the records."""
