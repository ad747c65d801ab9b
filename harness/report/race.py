"""What a race saved: the sentence in reports and in the summary of a run."""

from __future__ import annotations

from harness.core.run_results import Outcome, Results
from harness.core.training_outcome import Status, Training
from harness.core.wording import listed, plural


def race(results: Results) -> str:
    """Return how many variants left a race, and what that saved; empty without a race or if none left."""
    left = [variant for variant in results.variants if Status.STOPPED in variant.statuses]
    if not left:
        return ""
    trained = sum(training.supervised_tokens for variant in results.variants for training in variant.training)
    saved = sum(_not_trained(variant) for variant in left)
    share = f"{100 * saved / (trained + saved):.0f}%" if trained + saved else "none"
    names = listed([variant.name for variant in left], most=4)
    return (
        f"Race: {len(left)} of {plural(len(results.variants), 'variant')} stopped before the end of their training, "
        f"because they could no longer be chosen ({names}). They are not compared with the others. This saved {share} "
        "of the grid's training, counted in tokens with a label. The same command without `--race` trains them to "
        "their ends."
    )


def _not_trained(variant: Outcome) -> float:
    """Return the number of tokens with a label that a variant that left would still have been trained on.

    Under a seed without any training, it would have been as many as under the other seeds.
    """
    whole = [_whole(variant, training) for training in variant.training]
    unseen = len(variant.seeds) - len(whole)
    return sum(whole) + unseen * max(whole, default=0.0) - sum(each.supervised_tokens for each in variant.training)


def _whole(variant: Outcome, training: Training) -> float:
    """Return the number of tokens with a label of a training, if it was continued to its end."""
    done = training.steps[-1].epoch if training.steps else 0.0
    if variant.settings is None or not 0 < done < variant.settings.epochs:
        return training.supervised_tokens
    return training.supervised_tokens * variant.settings.epochs / done
