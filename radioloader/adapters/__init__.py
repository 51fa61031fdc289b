"""Other libraries' pipelines on the store: MONAI and TorchIO."""
