"""From labelled structures to batched graphs of tensors."""
