"""Train tiny-thinker on the testbed, and measure what it has learned."""
