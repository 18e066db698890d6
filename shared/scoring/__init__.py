"""Scores of one text against another, pure functions from 0 to 1: ROUGE, BLEU, GLEU, fuzzy matching, cosine;
and labels."""
