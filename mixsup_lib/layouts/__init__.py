"""How each public data set lies on disk: one file per layout."""
