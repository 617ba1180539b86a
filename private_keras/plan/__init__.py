"""The program: a plan is data. Knows no protocol, no network and no Keras."""
