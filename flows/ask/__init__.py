"""Questions that run nothing: the plan, its reasons and price, styles, comparisons."""
