"""The SDK for modules, without a platform."""
