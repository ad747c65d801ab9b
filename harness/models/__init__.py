"""Base models and adapters: finding and downloading models, their architectures, and the tokens of conversations."""
