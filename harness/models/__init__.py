"""Base models and adapters: resolving names, the Hub, architectures, token lengths."""
