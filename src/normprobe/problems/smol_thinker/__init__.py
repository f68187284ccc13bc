"""Problems of reasoning-gym that smol-thinker learns to think about, with thoughts whose every token has a role."""
