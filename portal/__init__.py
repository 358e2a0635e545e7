"""The front: REST, WebSocket, chat page and the `ai-infra` command. `app.py` wires it."""
