"""Assignment of cases to training, validation and test, and the audit for leakage between them."""
