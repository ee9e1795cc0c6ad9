"""The models: CLAP's encoders, the mapper, GPT-2 with beam search and tokenizer; and how their weights are loaded."""
