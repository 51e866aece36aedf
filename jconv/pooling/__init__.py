"""How each kind of pooling is computed, a file a kind.

    sums        sums and means
    extremes    the greatest or the least, and where it was
    folds       products
    smooth      log-sum-exps and norms, of the numbers of `scaled`
    bins        any of these, over bins in place of windows

They go by `stages`, of which each is a fused loop over `views` of what it reads, its adjoint one
over `cells` of what it gives back; on accelerators by `reductions` where these serve, and where
scratch would be too much a few images at a time, by `batches`.
"""
