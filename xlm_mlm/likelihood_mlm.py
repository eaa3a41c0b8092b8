"""Likelihoods and scores of given tokens; `docs/likelihood.md` says which to use."""

from xlm_mlm.likelihood.bound import mlm_nll
from xlm_mlm.likelihood.draws import content_ids
from xlm_mlm.likelihood.pseudo import pseudo_log_likelihood
from xlm_mlm.likelihood.units import bits_per_token, perplexity

__all__ = ["bits_per_token", "content_ids", "mlm_nll", "perplexity", "pseudo_log_likelihood"]
