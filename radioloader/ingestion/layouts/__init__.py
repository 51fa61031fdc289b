"""Folders as people have them (nnU-Net, decathlon, BIDS, tables, DICOM trees), and what an ingest makes of each."""
