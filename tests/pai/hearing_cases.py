"""Two requests in a row: the answer between them, and whether the second asks again, turns away,
or is simply the next thing.
"""

from __future__ import annotations

AGAIN = (
    ("How do I revert the last commit in git?", "Use git revert HEAD.",
     "But how do I revert the last commit in git without making a new commit?"),
    ("Why is the build red?", "The build is red since a test of the parser fails.",
     "And why does that test of the parser fail now?"),
    ("What is the port of the staging server?", "It is 8123.",
     "I meant the port of the production server, not staging."),
    ("Make a chart of the sales by month.", "The chart is in chart.png.",
     "The months in the chart of the sales are in the wrong order."),
    ("Explain how TLS works.", "TLS uses certificates to agree on a shared key.",
     "I do not understand how the certificates of TLS lead to a shared key."),
    ("Summarise the report on the outage.", "The outage was caused by a full disk.",
     "Which disk was full in the outage?"),
)  # fmt: skip

AWAY = (
    ("Why is the build red?", "The build is red since a test of the parser fails.",
     "What should I cook for six vegetarian guests tonight?"),
    ("Make a chart of the sales by month.", "The chart is in chart.png.",
     "Translate the poem about the sea into French."),
    ("Explain how TLS works.", "TLS uses certificates to agree on a shared key.",
     "Find a cheap flight from Lisbon to Oslo in May."),
    ("Make a chart of the sales by month.", "The chart is in chart.png.",
     "Now write a letter to the board."),
)  # fmt: skip

NEXT = (
    ("Why is the build red?", "The build is red since a test of the parser fails.", "Thanks!"),
    ("Make a chart of the sales by month.", "The chart is in chart.png.", "Great, go on."),
    ("Write the function.", "Done: it is in a.py.", "Now add tests."),
    ("Set up a repository for the blog.", "The repository blog is there.",
     "Write the first post: it says who we are."),
    ("What is the port of the staging server?", "It is 8123.", "Restart nginx there, please."),
)  # fmt: skip
