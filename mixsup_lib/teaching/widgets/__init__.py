"""Explorers for the notebooks: controls above a picture, its description in words below."""
