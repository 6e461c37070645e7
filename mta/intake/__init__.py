"""How mail gets in: who may submit, and whether one message is accepted or refused."""
