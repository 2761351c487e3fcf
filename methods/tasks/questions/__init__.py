"""Question answering in the manner of SQuAD v1.1 (Rajpurkar et al. 2016): the answer to a question is a span of its context."""
