"""From a user's call to an analysed, planned and compiled explanation.

Read `arguments` (what is explained), `call` (one kind of call: its plan and its evaluation) and
`explained` (the cache of calls, through which every question passes).
"""
