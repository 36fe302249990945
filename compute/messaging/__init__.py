"""Messaging: transport set-up, serializer, dispatcher and the embedded bus."""
