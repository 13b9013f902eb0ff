"""Where the dollar price of bitcoin comes from: the configuration, or a JSON document by HTTP."""
