"""Stage `encode`: pictures to latents, captions to token ids."""
