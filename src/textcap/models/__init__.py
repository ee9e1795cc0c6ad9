"""The models: CLAP's encoders, the mapper, and GPT-2 with its tokenizer and beam search; and loading their weights."""
