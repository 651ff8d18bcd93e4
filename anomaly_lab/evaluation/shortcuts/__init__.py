"""Shortcuts: rules of one number a case that tell normal from anomalous without looking at what is pictured."""
