"""Making models small, and measuring how small and fast they are."""

from segshrink.compression.profile import profile_backend, profile_model

__all__ = ["profile_backend", "profile_model"]
