"""Problems and how their answers are scored: the bundled testbed, and files of a user."""
