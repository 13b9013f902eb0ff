"""Where the dollar price of bitcoin comes from: the configuration, a JSON document by HTTP, or Blink's servers."""
