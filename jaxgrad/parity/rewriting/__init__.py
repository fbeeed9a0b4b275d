"""Changes of a block's equations that undo a difference in convention, by what they change."""
