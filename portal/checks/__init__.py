"""What `ai-infra doctor` looks at: one file a check, each with the line that mends its fault.

All run side by side, each with its own deadline; what several need is opened once (`sight`).
"""
