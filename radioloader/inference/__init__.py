"""Predicting whole volumes patch by patch, into the store."""
