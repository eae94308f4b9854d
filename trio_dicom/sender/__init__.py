# Objects and what became of each.
