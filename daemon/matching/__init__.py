"""Stage 2: an event meets what is known, and a decision comes out; pure and synchronous."""
