"""File formats to arrays: one module a format, one way in (`files`)."""
