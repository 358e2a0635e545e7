"""Ground of the work: plans requests, routes and watches the agents, joins what they found."""
