"""What runs a network: one module a runtime, for files of segshrink and of strangers alike."""
