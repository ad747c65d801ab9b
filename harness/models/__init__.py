"""Base models and adapters: finding and downloading models, their architectures, and token counts of rows."""
