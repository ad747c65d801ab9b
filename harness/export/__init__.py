"""Exports a trained variant as an adapter, merged model or GGUF file, or to the Hugging Face Hub, and writes notebooks.

    targets/   one module per target: add one here      source          the adapter to export, and its base model
    registry   the list of targets                      output_folders  output folders that are complete or absent
    protocol   what a target module must define         shards          writes safetensors files, resumable
    llama_cpp  finds or installs llama.cpp              config_files    configuration and tokenizer of a merged model
    upload     uploads a folder to the Hub              model_card      README.md of an upload
    notebook/  the workshop for Colab and Kaggle, from a run or before any

This package does not import torch. Functions of the engine are passed in as `protocol.EngineFunctions`.
"""
