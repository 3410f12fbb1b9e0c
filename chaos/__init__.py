"""The fault suite: seeded faults against a live site, and a ledger that must balance.

A *run* is one fault: pushes flow, the fault begins, lasts, ends, pushes flow again, all comes to rest. Senders write
down what was acknowledged, targets what arrived; `ledger` compares both and says what does not fit.

    python -m chaos --runs 200 --seed 7      # all faults in turn
    python -m chaos --seed 7 --only 31       # run 31 of them again
"""
