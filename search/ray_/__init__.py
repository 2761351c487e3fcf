"""Ray carries a search where one machine is not enough: a pool of actors that evaluate, and Tune's searcher as a strategy.

Nothing here is imported unless a run asks for Ray.
"""
