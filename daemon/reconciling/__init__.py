"""Beside the flow: what the books say against what the nodes hold. Differences are explained and kept, never mended."""
