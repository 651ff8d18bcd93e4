"""Pages for people: run report, data sheet, predictions; charts and pictures they are made of."""
