"""Pages, pictures and animations of what the predictor did."""
