"""Defines the engine's protocol, an engine that plays scripts, and the driver of kernel and engine."""
