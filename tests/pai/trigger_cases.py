"""Triggers of learnings ("applies when"), each with situations that it fits and others that are
near but different. The cases of `CHOSEN` set the threshold, those of `HELD` only prove it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    trigger: str
    fits: tuple[str, ...]
    near: tuple[str, ...]


CHOSEN = (
    Case(
        "a database migration changes a column of a large table",
        ("Write the migration that renames the column email to address in the users table, it has 40 million rows.",
         "We need to change the type of the price column in the orders table. Make the database migration for it."),
        ("Show me how many rows the users table has.",
         "Set up a new PostgreSQL database for the blog."),
    ),
    Case(
        "tests fail only on the build server and not locally",
        ("The tests pass on my machine but three of them fail in CI. Find out why.",
         "Why do the tests fail on the build server when locally they are all green?"),
        ("Write tests for the parser module.",
         "The build server's disk is full, clean it up."),
    ),
    Case(
        "a TLS certificate is renewed with certbot behind nginx",
        ("Renew the certificate of example.org with certbot; nginx is in front.",
         "The TLS certificate behind our nginx expires on Friday, please run certbot and renew it."),
        ("Configure nginx to serve the static files of the blog.",
         "Which certificates do I need to become a licensed electrician?"),
    ),
    Case(
        "a CSV file with German number formats is read",
        ("Read the German sales.csv, the numbers have a comma as the decimal mark, and sum up the column amount.",
         "Import this CSV export from a German bank: numbers look like 1.234,56."),
        ("Write a CSV file with the names of all employees.",
         "Translate this German letter into English."),
    ),
    Case(
        "a web page is scraped that loads its content with JavaScript",
        ("Scrape the prices from this shop; the page is empty until its JavaScript has loaded them.",
         "Get the table from the web page. It only loads its content by JavaScript."),
        ("Write a JavaScript function that sorts a table by price.",
         "Summarise the text of this web page."),
    ),
    Case(
        "dates of several time zones are compared",
        ("Compare the log times of the server in Tokyo with ours in Berlin and find which came first; mind the time zones.",
         "Fix the bug in the calendar: meetings across time zones are compared wrongly and dates are off by a day."),
        ("What date is Easter next year?",
         "Plan a trip through three countries."),
    ),
    Case(
        "a Docker image gets too large",
        ("Our Docker image is 2.4 GB large. Make it smaller.",
         "Reduce the size of the docker image of the service, it got far too large to deploy."),
        ("Start the service in Docker.",
         "These images of the team are too large for an e-mail, make them smaller."),
    ),
    Case(
        "a git history with conflicts is rebased",
        ("Rebase the feature branch onto main and solve the conflicts.",
         "My git rebase stops at every commit with conflicts. Help me to get the history clean."),
        ("Which commits did Ada make last week?",
         "Tell me about the history of conflicts in the Balkans."),
    ),
    Case(
        "a report for the management is written",
        ("Write a short report for the management about the outage in March.",
         "Prepare the quarterly report for our management."),
        ("Write a unit test for the report generator.",
         "Report the progress of the download every ten seconds."),
    ),
    Case(
        "a service does not start after an update of its package",
        ("After yesterday's update of the package postgresql the service does not start any more.",
         "redis-server will not start since I updated its package. Fix it."),
        ("Write a systemd unit for our new service.",
         "Update the package list of this server."),
    ),
    Case(
        "a Python program is slow because it reads a file line by line",
        ("This Python script takes an hour since it reads the log file line by line. Make it fast.",
         "Speed up the program that reads a 3 GB file line by line in Python."),
        ("Write a Python script that prints the third line of a file.",
         "The internet connection is slow today, find out why."),
    ),
    Case(
        "an API answers with a rate limit",
        ("The weather API answers 429 too many requests. Fetch the data without running into its rate limit.",
         "We hit the API's rate limit while importing contacts; handle that."),
        ("Document the API of our billing service.",
         "What is the speed limit on motorways in France?"),
    ),
    Case(
        "the person asks for an answer in one sentence",
        ("In one sentence: what is a monad?",
         "Give me the answer in one sentence, please: why is the sky blue?"),
        ("Write an essay about the sky with at least ten sentences.",
         "What is the longest sentence in Proust?"),
    ),
)  # fmt: skip

HELD = (
    Case(
        "a shell script must run on macOS and Linux",
        ("Write a shell script for the backup that runs on macOS as well as on Linux.",
         "Make this script portable: it works on Linux, but on macOS sed complains."),
        ("Install Linux on my old laptop.",
         "Write a script for a short film about the sea."),
    ),
    Case(
        "user passwords are stored",
        ("Add a login to the app and store the users' passwords.",
         "How should we store the passwords of our users in the database?"),
        ("List the users who logged in today.",
         "Store the uploaded pictures in the folder media."),
    ),
    Case(
        "charts are made for people who cannot tell colours apart",
        ("Make the charts of the report readable for colour-blind people.",
         "Choose colours for the chart that people with red-green blindness can tell apart."),
        ("Make a bar chart of the sales by month.",
         "Which people are on the board of the company?"),
    ),
    Case(
        "an nginx configuration is changed on a running server",
        ("Change the nginx configuration on the server so that /old redirects to /new; do not interrupt anyone.",
         "Add a new site to the nginx configuration of the running server."),
        ("Explain what a reverse proxy is.",
         "Change the configuration of my editor to use tabs."),
    ),
    Case(
        "a recursive function runs into the recursion limit in Python",
        ("My recursive Python function dies with RecursionError: maximum recursion depth exceeded.",
         "Walk this very deep tree in Python; the recursive function hits the recursion limit."),
        ("Explain recursion to a child.",
         "Write a Python function that adds two numbers."),
    ),
    Case(
        "money amounts are added up",
        ("Add up the amounts of all invoices of May; cents must be exact.",
         "Write a function that adds up money amounts for the shopping cart."),
        ("Count how many invoices there are.",
         "How much water should I drink a day?"),
    ),
    Case(
        "a large file is uploaded through the portal",
        ("Uploading a large video file through the portal fails after a minute.",
         "Users cannot upload large files through the portal. Find the reason."),
        ("Delete the large files in /var/log.",
         "Add a dark theme to the portal."),
    ),
    Case(
        "sources are contradictory on a question of fact",
        ("Find out in what year the bridge was built; the sources contradict each other.",
         "Two sources give contradictory numbers for the population of the town. Which fact is right?"),
        ("Compile the sources into a binary.",
         "Answer the question of my customer politely."),
    ),
    Case(
        "an e-mail is sent to many customers",
        ("Send an e-mail about the new prices to all our customers.",
         "Write the script that sends the newsletter e-mail to 8,000 customers."),
        ("Read the customer list and count the countries.",
         "Set up an e-mail account for the new colleague."),
    ),
    Case(
        "a memory leak is looked for in a long running process",
        ("The worker process grows to 6 GB over a week. Find the memory leak.",
         "Look for the memory leak in our long-running daemon."),
        ("Improve my memory for names.",
         "List all running processes of the user www."),
    ),
    Case(
        "JSON from an untrusted source is parsed",
        ("Parse the JSON that users upload; it comes from an untrusted source and may be broken.",
         "Our webhook gets JSON from strangers. Parse it without trusting it."),
        ("Write the settings as JSON.",
         "Can this news source be trusted?"),
    ),
    Case(
        "an old framework version is upgraded to a new major version",
        ("Upgrade the project from Django 3 to the new major version 5.",
         "Our frontend uses a very old version of React. Upgrade it to the newest major version of the framework."),
        ("What frameworks are there for web pages in Python?",
         "Install version 12 of Node."),
    ),
)  # fmt: skip
