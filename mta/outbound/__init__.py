"""How mail gets out: scheduler, router, lanes and connections, delivery, outcome."""
