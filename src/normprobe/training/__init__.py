"""How the bundled models were trained: tiny-thinker from nothing, smol-thinker from SmolLM2."""
