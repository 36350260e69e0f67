"""What compare.py is made of.

work.py         a layer, its weights and a batch: what is computed, and how much that is
contender.py    one library at one case
libraries/      the contenders of each library
characters.py   a whole training step of a character model
cases.py        every case, by name
measuring.py    results compared, then turns, rounds and medians
roofline.py     the machine's limits, and the least time that a work can take
goals.py        the numbers to reach, and whether they are
machine.py      what it was measured on
tables.py       a record in Markdown
plot.py         a record as a picture
"""
