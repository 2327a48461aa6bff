"""What the notebooks need beside the library: figures, exercises, explorers and recorded lessons."""
