"""Speed and memory, A/B interleaved: of the parts, beside a bare loop, MONAI, a one-by-one search, a peer."""
