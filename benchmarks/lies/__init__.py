"""A generator of lies: answers that are right or wrong by construction, for every form of answer.

A maker of problems (`@form`) draws exact parameters and writes a gold, answers that are the same by a rewriting, and
answers that differ by a known change. Nothing here asks a grader or an algebra system.

Left out, because the field is split or `docs/adr/0012` leaves it to an option: `(1,2,3)` for the list `1,2,3`; `{1,2}`
for `(1,2)`; a set with one element for the element; conversions of units; `2516` for a single unsigned `2516_8`; `20`
for `20\\%` is right and `20\\%` for a bare number not asked; plain arithmetic left to do; `AB` for the segment `BA`; a
two-part ratio as a fraction; `{\\emptyset}` for nothing; the odd root of a negative number.
Decided as record 12 does: two decimals of an irrational number are wrong; a number without its base is wrong inside a
form; `12, 345` is two numbers.
"""
