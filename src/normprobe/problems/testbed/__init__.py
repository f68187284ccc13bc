"""Problems whose reasoning steps are known, and tiny-thinker, the bundled thinking model trained on them."""
