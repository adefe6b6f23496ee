"""The emulator over HTTP: routes, gateway, middleware, server."""
