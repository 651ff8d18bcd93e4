"""The page of a study: tables, plots, pictures."""
