"""More training rows by replacing words (TinyBERT, Jiao et al. 2020, section 3.2), shared by all methods of an experiment."""
