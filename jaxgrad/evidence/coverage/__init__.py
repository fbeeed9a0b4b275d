"""Coverage: sizes and branches at which a claim is looked at, and looks that meet them."""
