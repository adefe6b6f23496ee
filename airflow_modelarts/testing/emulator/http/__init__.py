"""The emulator over HTTP: routes of the service and of the control API, gateway, middleware, server."""
