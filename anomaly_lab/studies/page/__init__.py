"""The page of a study: tables, plots and pictures."""
