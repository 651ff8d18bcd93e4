"""Lesions planted on normal images: anomalies that are known, so that choices need no test labels. Tensors only.

Every kind of lesion is a file of `kinds/`; `planting.plant` draws one for each image. `TUNING` are the kinds by which
settings are chosen, `HELD_BACK` those that a choice has not seen and is checked with in the end.

Example:
    >>> from anomaly_lab.lesions.planting import HELD_BACK, TUNING
    >>> sorted({kind.name for kind in TUNING} & {kind.name for kind in HELD_BACK})
    []
"""
