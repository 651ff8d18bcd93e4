"""Who trains, who is held out, who is judged; and whether pictures leak between them."""
