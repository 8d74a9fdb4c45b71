"""Conversion of released checkpoints, and what is pushed to the Hugging Face Hub."""
