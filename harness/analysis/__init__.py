"""What the scores of a run show: tables of scores, statistics, comparisons and decisions."""
