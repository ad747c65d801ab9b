from __future__ import annotations


def loss_cell(run, name, head):
    return None


def check(page):
    pass
